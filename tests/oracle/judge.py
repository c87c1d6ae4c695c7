"""Compares what the devices show at rest with what the users did: the verdict on one stretch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tests.oracle.ledger import Ledger, tokens_in, wrong_in
from tests.oracle.tree import Kind, Tree

PROPERTIES: Mapping[str, str] = {
    "P1": "no lost update",
    "P2": "no resurrection",
    "P3": "conflict copies exactly where due",
    "P5": "never a mix or a part",
    "P11": "all devices end the same",
    "stale": "superseded content kept as a conflict copy",
    "twin": "a conflict copy of what its path shows as well",
}
"""The last two are a resurrection and a conflict copy that is not due, strictly: but nothing is
lost by them, and they come only of changes to one side of a conflict while others settle it. So
they are counted by themselves, and decide nothing unless that is asked for."""

HARMLESS = frozenset({"stale", "twin"})
_MOST_DIFFERENCES = 10


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    device: str
    path: str
    text: str
    tokens: tuple[int, ...] = ()
    story: tuple[str, ...] = ()

    @property
    def is_harmless(self) -> bool:
        return self.rule in HARMLESS

    def __str__(self) -> str:
        told = "".join(f"\n    {line}" for line in self.story)
        return f"{self.rule} on {self.device}, “{self.path}”: {self.text}{told}"


def judge(ledger: Ledger, trees: Mapping[str, Tree]) -> list[Violation]:
    """What is wrong with the trees, by device. The same wrong on several devices is told once."""
    found: dict[tuple[str, str, tuple[int, ...]], list[Violation]] = {}
    for device, tree in trees.items():
        for one in _of_device(ledger, device, tree):
            found.setdefault((one.rule, one.path, one.tokens), []).append(one)
    violations = [_joined(ones, len(trees)) for ones in found.values()]
    violations += _differences(trees)
    return [with_story(one, ledger) for one in violations]


def with_story(one: Violation, ledger: Ledger) -> Violation:
    paths = {one.path, *(place.path for token in one.tokens for place in ledger.places_of(token))}
    story = tuple(ledger.story(one.tokens, paths))
    return Violation(one.rule, one.device, one.path, one.text, one.tokens, story)


def _joined(ones: list[Violation], devices: int) -> Violation:
    first = ones[0]
    where = "all" if len(ones) == devices else ", ".join(one.device for one in ones)
    return Violation(first.rule, where, first.path, first.text, first.tokens)


def _of_device(ledger: Ledger, device: str, tree: Tree) -> Iterator[Violation]:
    for path, node in wrong_in(tree).items():
        yield Violation("P5", device, path, f"at rest it holds {node.wrong}")
    shown = tokens_in(tree)
    yield from _lost(ledger, device, tree, shown)
    for token, paths in shown.items():
        copies = []
        for path in paths:
            place = ledger.places.get((token, path))
            if place is None and not ledger.came_along(token, path):
                yield from _unexpected(ledger, device, path, token)
                copies.append(path)
            elif place is not None and not ledger.may_show(place):
                kind = "stale" if place.is_copy else "P2"
                text = f"token {token} is back, which was overwritten, deleted or renamed here"
                yield Violation(kind, device, path, text, (token,))
        yield from _surplus(ledger, device, tree, token, copies, shown)


def _lost(
    ledger: Ledger, device: str, tree: Tree, shown: Mapping[int, list[str]]
) -> Iterator[Violation]:
    for place in ledger.places.values():
        if not place.must_show:
            continue
        paths = shown.get(place.token, [])
        if place.path in paths:
            continue
        places = (ledger.places.get((place.token, path)) for path in paths)
        if any(other is None or not other.must_show for other in places):
            continue
        instead = tree.get(place.path)
        if instead is not None and instead.token is not None:
            came_along = ledger.came_along(instead.token, place.path)
            if came_along and ledger.replaced(instead.token, place.token):
                # It was just being overwritten where the directory had its earlier name.
                continue
        text = (
            f"token {place.token} is lost, which nobody overwrote or deleted here; "
            f"the path shows {instead or 'nothing'}"
        )
        yield Violation("P1", device, place.path, text, (place.token,))


def _unexpected(ledger: Ledger, device: str, path: str, token: int) -> Iterator[Violation]:
    """A token at a path where no user has put it."""
    homes = ledger.places_of(token)
    if not homes:
        text = f"token {token} is back, which had vanished from all devices before"
        yield Violation("P2", device, path, text, (token,))
    elif path in ledger.own_paths:
        text = f"it holds token {token}, which nobody ever wrote there"
        yield Violation("P5", device, path, text, (token,))
    elif not any(ledger.may_show(home) for home in homes):
        # Someone who was just settling a conflict of it could not know. With old content there
        # was none.
        is_settled = ledger.is_quiet or all(home.is_old for home in homes)
        kind = "P2" if is_settled else "stale"
        text = f"a copy of token {token}, which was overwritten, deleted or renamed"
        yield Violation(kind, device, path, text, (token,))


def _surplus(
    ledger: Ledger,
    device: str,
    tree: Tree,
    token: int,
    copies: Iterable[str],
    shown: Mapping[int, list[str]],
) -> Iterator[Violation]:
    """Copies of a live token that no conflict asked for."""
    listed = [path for path in copies if path not in ledger.own_paths]
    all_homes = ledger.places_of(token)
    homes = [place for place in all_homes if ledger.may_show(place)]
    if not listed or not any(place.must_show for place in homes):
        return
    due = [
        home.path
        for home in homes
        if not _shows(tree, home.path, token) and _is_contended(ledger, tree, home.path, token)
    ]
    for number, path in enumerate(listed[len(due) :]):
        # Renamed away while others, who did not know of that, settled a conflict of it.
        is_stale = any(
            not ledger.may_show(home)
            and not home.is_old
            and (ledger.rivals(token, home.path) or home.path in ledger.made_directories)
            for home in all_homes
        )
        others = ", ".join(f"“{home.path}”" for home in homes)
        text = f"a copy of token {token} of {others} that no conflict asked for"
        is_twin = any(
            _shows(tree, home.path, token)
            and (
                ledger.late_rivals(token, home.path, shown) or home.path in ledger.made_directories
            )
            for home in homes
        )
        kind = "P3"
        if not ledger.is_quiet:
            kind = "stale" if is_stale else "twin" if is_twin and not number else "P3"
        yield Violation(kind, device, path, text, (token,))


def _shows(tree: Tree, path: str, token: int) -> bool:
    node = tree.get(path)
    return node is not None and node.token == token


def _is_contended(ledger: Ledger, tree: Tree, path: str, token: int) -> bool:
    """Whether something else may claim the path: another content, or a directory, or a file where
    its directory was."""
    if ledger.is_quiet:
        return False
    if path in ledger.directories or ledger.rivals(token, path):
        return True
    above = path.rpartition("/")[0]
    while above:
        parent = tree.get(above)
        if parent is not None and parent.kind is not Kind.DIRECTORY:
            return True
        above = above.rpartition("/")[0]
    return False


def _differences(trees: Mapping[str, Tree]) -> list[Violation]:
    (first, expected), *others = trees.items()
    found: dict[str, Violation] = {}
    for name, tree in others:
        for path in sorted(expected.keys() | tree.keys()):
            ours, theirs = expected.get(path), tree.get(path)
            if (ours and ours.shown) != (theirs and theirs.shown):
                text = f"{first} shows {ours or 'nothing'}, {name} shows {theirs or 'nothing'}"
                tokens = tuple({node.token for node in (ours, theirs) if node and node.token})
                found.setdefault(path, Violation("P11", name, path, text, tokens))
    return list(found.values())[:_MOST_DIFFERENCES]
