"""What the users did since all devices last held the same, and what became of each token by that.

A *place* is a token at a path. A write or a rename makes one; a write, a deletion or a rename that
found it on the disk ends it. The synchronizer has no say in this. Where the harness cannot know
what it overwrote, because the path changed in that moment, the place is *unclear*: it may be shown
and it may be gone, and neither is a violation.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from tests.oracle.tree import Found, Kind, Tree


class Fate(Enum):
    LIVE = "live"
    UNCLEAR = "unclear"
    GONE = "gone"


@dataclass(slots=True)
class Place:
    token: int
    path: str
    fate: Fate = Fate.LIVE
    is_copy: bool = False
    """It was the synchronizer that put the token here, as a conflict copy."""
    removed_by: set[str] = field(default_factory=set)
    """Devices on which it was deleted or renamed, but not overwritten."""
    touched_by: set[str] = field(default_factory=set)
    """Devices on which its time or its mode was changed."""
    is_twin: bool = False
    """Several users wrote it without knowing of each other: who deletes one does not know all."""
    is_old: bool = False
    """All devices held it here when this stretch began, so that nobody can take it for news."""

    @property
    def must_show(self) -> bool:
        return self.fate is Fate.LIVE


@dataclass(frozen=True, slots=True)
class Event:
    number: int
    at: float
    device: str
    what: str
    paths: frozenset[str] = frozenset()
    tokens: frozenset[int] = frozenset()
    epoch: int = 0

    def __str__(self) -> str:
        return f"#{self.number:<5} {self.at:8.3f} s  {self.device:<6} {self.what}"


class Ledger:
    """Begins anew, with `rest`, each time all devices hold the same."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.epoch = 0
        self.unclear = 0
        """How many places became unclear, in all."""
        self._began = time.monotonic()
        self._next_token = 0
        self._clear()

    def _clear(self) -> None:
        self.places: dict[tuple[int, str], Place] = {}
        self.own_paths: set[str] = set()
        """Names that users, not the synchronizer, have given."""
        self.directories: set[str] = set()
        """Where a directory was at any time."""
        self.made_directories: set[str] = set()
        """Where users have made one."""
        self.torn_paths: set[str] = set()
        """Where a user's own program left an empty file for a moment."""
        self._over: defaultdict[int, set[int]] = defaultdict(set)
        """What each token has overwritten."""
        self.is_quiet = False
        """Only one user was at work, so that nothing can be in conflict."""
        self.moves: list[tuple[str, str]] = []
        """Directories that were renamed, in order."""

    def rest(self, trees: Iterable[Tree]) -> None:
        """What is shown now is what the next events begin from. Where the trees differ, nothing is
        demanded of what only some of them show."""
        listed = list(trees)
        self._clear()
        self.epoch += 1
        for tree in listed:
            for path, found in tree.items():
                self.own_paths.add(path)
                if found.kind is Kind.DIRECTORY:
                    self.directories.add(path)
                if found.token is None:
                    continue
                common = all(path in other and other[path].token == found.token for other in listed)
                fate = Fate.LIVE if common else Fate.UNCLEAR
                self.places[found.token, path] = Place(found.token, path, fate, is_old=common)

    def new_token(self) -> int:
        self._next_token += 1
        return self._next_token

    def note(
        self, device: str, what: str, paths: Iterable[str] = (), tokens: Iterable[int] = ()
    ) -> None:
        self.events.append(
            Event(
                len(self.events),
                time.monotonic() - self._began,
                device,
                what,
                frozenset(paths),
                frozenset(tokens),
                self.epoch,
            )
        )

    def places_of(self, token: int) -> list[Place]:
        return [place for place in self.places.values() if place.token == token]

    def places_at(self, path: str) -> list[Place]:
        return [place for place in self.places.values() if place.path == path]

    def rivals(self, token: int, path: str) -> bool:
        """Whether something that the token's writer did not know of was written to its path too,
        whatever became of it."""
        return any(
            self.may_show(place) or not place.is_old for place in self._unknown_to(token, path)
        )

    def late_rivals(self, token: int, path: str, shown: Mapping[int, Iterable[str]]) -> bool:
        """Whether there was such a one that is no more, neither there nor in a conflict copy.
        `shown`: the paths of each token. One that a user renamed shows at its new path."""
        return any(
            place.fate is Fate.GONE
            and not place.is_old
            and self.own_paths.issuperset(shown.get(place.token, ()))
            for place in self._unknown_to(token, path)
        )

    def _unknown_to(self, token: int, path: str) -> list[Place]:
        known = self._known_to(token)
        return [
            place
            for place in self.places_at(path)
            if place.token != token and (place.token not in known or place.is_twin)
        ]

    def may_show(self, place: Place) -> bool:
        return place.fate is not Fate.GONE or self._is_contested(place)

    def _is_contested(self, place: Place) -> bool:
        """Given a new time or mode on one device, itself or what it replaced, while another one
        deleted it, or what replaced it: either may win."""
        here = self.places_at(place.path)
        known = self._known_to(place.token)
        removed = {
            device
            for other in here
            if place.token in self._known_to(other.token)
            for device in other.removed_by
        }
        touched = {device for other in here if other.token in known for device in other.touched_by}
        return bool(removed and touched) and len(touched | removed) > 1

    def replaced(self, token: int, other: int) -> bool:
        """Whether the token was written over the other one, or over what had replaced that."""
        return other != token and other in self._known_to(token)

    def _known_to(self, token: int) -> set[int]:
        """The token and all that it replaced, and what that replaced."""
        known = {token}
        fresh = [token]
        while fresh:
            more = self._over[fresh.pop()] - known
            known |= more
            fresh += more
        return known

    def wrote(self, path: str, token: int, *, sure: bool = True) -> None:
        """A user put the token there, by a write or by a rename."""
        self.own_paths.add(path)
        place = self.places.get((token, path))
        if place is None or (sure and place.fate is Fate.GONE):
            fate = Fate.LIVE if sure else Fate.UNCLEAR
            self.unclear += not sure
            self.places[token, path] = Place(token, path, fate)

    def made_directory(self, path: str) -> None:
        self.own_paths.add(path)
        self.directories.add(path)
        self.made_directories.add(path)

    def unwrote(self, path: str, token: int) -> None:
        """It was announced by `wrote`, and then nothing came of it."""
        self.places.pop((token, path), None)

    def wrote_again(self, path: str, token: int) -> None:
        """Another user wrote the very same."""
        self.places[token, path].is_twin = True

    def doubt(self, path: str, token: int) -> None:
        """It is not sure that the token came to be at the path."""
        place = self.places[token, path]
        if place.fate is Fate.LIVE:
            place.fate = Fate.UNCLEAR
            self.unclear += 1

    def ended(self, device: str, path: str, token: int, *, by: int = 0, sure: bool = True) -> None:
        """A user overwrote (`by` another token), deleted or renamed away the token here."""
        if by:
            self._over[by].add(token)
        place = self.places.get((token, path))
        if place is None:
            # A copy, made by the synchronizer. Whether the token still shows at its own path on
            # some other device is not ours to say.
            place = self.places[token, path] = Place(token, path, is_copy=True)
            for other in self.places_of(token):
                if other is not place and other.fate is Fate.LIVE:
                    other.fate = Fate.UNCLEAR
                    self.unclear += 1
        if sure and not place.is_twin:
            place.fate = Fate.GONE
            if not by:
                place.removed_by.add(device)
        elif place.fate is Fate.LIVE:
            place.fate = Fate.UNCLEAR
            self.unclear += 1

    def touched(self, device: str, path: str, token: int) -> None:
        place = self.places.get((token, path))
        if place is not None:
            place.touched_by.add(device)

    def came_along(self, token: int, path: str) -> bool:
        """Whether the token was written below a directory that was renamed so that it could be
        here: a synchronizer that was just writing it then put it into the renamed directory."""
        return any((token, earlier) in self.places for earlier in self._earlier_names(path))

    def _earlier_names(self, path: str) -> Iterator[str]:
        names = {path}
        for before, after in reversed(self.moves):
            for name in list(names):
                if name.startswith(f"{after}/"):
                    names.add(before + name.removeprefix(after))
        return iter(names - {path})

    def story(self, tokens: Iterable[int], paths: Iterable[str]) -> list[str]:
        """All that happened to these tokens, what happened at these paths since the devices last
        held the same, and the faults since then."""
        wanted, places = set(tokens), set(paths)
        return [
            str(event)
            for event in self.events
            if event.tokens & wanted
            or (event.epoch == self.epoch and (event.paths & places or not event.paths))
        ]


def tokens_in(tree: Tree) -> dict[int, list[str]]:
    """The paths at which each token shows."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for path, node in tree.items():
        if node.token is not None:
            found[node.token].append(path)
    return found


def wrong_in(tree: Tree) -> dict[str, Found]:
    return {path: node for path, node in tree.items() if node.wrong}
