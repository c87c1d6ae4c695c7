"""Chooses what the users do. The seed decides the choices; what they meet is on the disk."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.oracle.tokens import SMALLEST
from tests.oracle.tree import Found, Kind
from tests.oracle.user import Missed, User

_FEW_FILES, _MANY_FILES = 40, 110
_DEEPEST = 3
_ATTEMPTS = 12
_ENDINGS = ("", ".txt", ".txt", ".tar.gz", " of mine.md", "é.txt")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a synchronizer says that it carries; of the rest nothing is asked."""

    links: bool = True
    modes: bool = True
    empty_directories: bool = True


class Chooser:
    """The choices of a run. Between `begin` and `begin` most of them meet at a few hot paths."""

    def __init__(self, seed: int, abilities: Abilities, *, biggest: int = 1 << 20) -> None:
        self.random = random.Random(seed)
        self._abilities = abilities
        self._biggest = biggest
        self._named = 0
        self._hot: list[str] = []

    def begin(self, user: User, *, contended: bool) -> None:
        """A new stretch; when it is `contended`, the users like the same paths."""
        self._hot = []
        if contended:
            paths = sorted(user.tree())
            self._hot = self.random.sample(paths, min(6, len(paths)))
            self._hot += [self._new_name(user, directory="") for _ in range(2)]

    def act(self, user: User, *, plain: bool = False) -> bool:
        """One change by one user; whether there was one that fits to what is on the disk."""
        for _ in range(_ATTEMPTS):
            try:
                self._act(user, plain=plain)
            except Missed:
                continue
            return True
        return False

    def twins(self, users: Sequence[User]) -> bool:
        """Several users make the same file without knowing of each other: no conflict."""
        path, size, token = self._new_name(users[0], directory=""), self._size(), 0
        try:
            for user in users:
                token = user.create(path, size, token=token)
        except Missed:
            return False
        return True

    def _act(self, user: User, *, plain: bool) -> None:
        tree = user.tree()
        files = _paths(tree, Kind.FILE)
        action = self.random.choices(*self._weights(len(files), plain=plain))[0]
        action(user, tree, plain)

    def _weights(self, files: int, *, plain: bool) -> tuple[list["_Action"], list[int]]:
        create = 40 if files < _FEW_FILES else 12 if files < _MANY_FILES else 3
        delete = 2 if files < _FEW_FILES else 9 if files < _MANY_FILES else 30
        links = 4 if self._abilities.links else 0
        table: list[tuple[_Action, int]] = [
            (self._create, create),
            (self._edit_in_place, 16),
            (self._save, 16),
            (self._delete, delete),
            (self._delete_directory, 1 if files < _MANY_FILES else 4),
            (self._rename, 9),
            (self._rename_over, 3 if plain else 0),
            (self._rename_directory, 4),
            (self._make_directory, 4 if self._abilities.empty_directories else 0),
            (self._flip_mode, 5 if self._abilities.modes else 0),
            (self._touch, 4),
            (self._to_directory, 3),
            (self._to_file, 2),
            (self._link, links),
        ]
        return [action for action, _ in table], [weight for _, weight in table]

    def _create(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        hot = [path for path in self._hot if path not in tree and _has_parent(tree, path)]
        path = self.random.choice(hot) if hot and self.random.random() < 0.5 else None
        user.create(path or self._new_name(user), self._size(), plain=plain)

    def _edit_in_place(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.edit_in_place(self._pick(tree, Kind.FILE))

    def _save(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.save(self._pick(tree, Kind.FILE), self._size(), plain=plain)

    def _delete(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.delete(self._pick(tree, Kind.FILE, Kind.LINK), plain=plain)

    def _delete_directory(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.delete(self._pick_small(tree))

    def _rename(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.rename(self._pick(tree, Kind.FILE, Kind.LINK), self._new_name(user))

    def _rename_over(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        source = self._pick(tree, Kind.FILE)
        others = [path for path in _paths(tree, Kind.FILE) if path != source]
        if not others:
            raise Missed
        user.rename(source, self.random.choice(others), over=True)

    def _rename_directory(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        path = self._pick(tree, Kind.DIRECTORY)
        self._named += 1
        above = path.rpartition("/")[0] if self.random.random() < 0.7 else ""
        user.rename_directory(path, f"{above}/d{self._named}" if above else f"d{self._named}")

    def _make_directory(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.make_directory(self._new_name(user, stem="d"))

    def _flip_mode(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.touch(self._pick(tree, Kind.FILE), mode=True)

    def _touch(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.touch(self._pick(tree, Kind.FILE), mode=False)

    def _to_directory(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        kinds = (Kind.FILE, Kind.LINK) if self._abilities.links else (Kind.FILE,)
        path = self._pick(tree, *kinds)
        if path.count("/") >= _DEEPEST:
            raise Missed
        self._named += 1
        user.to_directory(path, f"f{self._named}", self._size())

    def _to_file(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        user.to_file(self._pick_small(tree), self._size())

    def _link(self, user: User, tree: dict[str, Found], plain: bool) -> None:
        links = _paths(tree, Kind.LINK)
        again = links and self.random.random() < 0.4
        user.link(self.random.choice(links) if again else self._new_name(user, stem="l"))

    def _pick(self, tree: dict[str, Found], *kinds: Kind) -> str:
        """One of the paths of these kinds, a hot one rather than another."""
        paths = _paths(tree, *kinds)
        hot = [path for path in self._hot if path in tree and tree[path].kind in kinds]
        if hot and self.random.random() < 0.6:
            return self.random.choice(hot)
        if not paths:
            raise Missed
        return self.random.choice(paths)

    def _pick_small(self, tree: dict[str, Found]) -> str:
        """A directory that holds few enough for no one to hold its deletion back."""
        path = self._pick(tree, Kind.DIRECTORY)
        if sum(other.startswith(f"{path}/") for other in tree) > 12:
            raise Missed
        return path

    def _new_name(self, user: User, *, stem: str = "f", directory: str | None = None) -> str:
        """A name that never was."""
        self._named += 1
        name = f"{stem}{self._named}"
        if stem == "f":
            name += self.random.choice(_ENDINGS)
        if directory is None:
            directories = [
                path
                for path in _paths(user.tree(), Kind.DIRECTORY)
                if path.count("/") < _DEEPEST - 1
            ]
            directory = self.random.choice(["", *directories])
        return f"{directory}/{name}" if directory else name

    def _size(self) -> int:
        chance = self.random.random()
        if chance < 0.9:
            return self.random.randrange(SMALLEST, 4000)
        return self.random.randrange(4096, 40_000 if chance < 0.97 else self._biggest)


_Action = Callable[[User, dict[str, Found], bool], None]


def _paths(tree: dict[str, Found], *kinds: Kind) -> list[str]:
    return sorted(path for path, found in tree.items() if found.kind in kinds)


def _has_parent(tree: dict[str, Found], path: str) -> bool:
    parent = path.rpartition("/")[0]
    return not parent or (parent in tree and tree[parent].kind is Kind.DIRECTORY)
