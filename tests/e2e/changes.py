"""What two users do to one directory while one of their daemons is down, and what must be there
afterwards: for each path the shapes that it has had, the oldest first.

It knows nothing of the product but how copies of a conflict are named.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.e2e.trees import Node, Tree, incompressible, snapshot

NOTHING = "nothing"
DIRECTORY = "directory"
LARGE = 500_000
"""Bytes; such a file is sent in pieces."""

_COPY = re.compile(r" \(conflict [^/]*\)")


def shape_of_content(content: bytes) -> str:
    return f"file {hashlib.sha256(content).hexdigest()}"


def shape_of_link(target: str) -> str:
    return f"link to {target}"


def shape(node: Node | None) -> str:
    if node is None:
        return NOTHING
    if node.kind == "file":
        return f"file {node.digest}"
    return shape_of_link(os.fsdecode(node.target)) if node.kind == "symlink" else node.kind


class Changes:
    """In the directory `where` of both roots. `base` is what both have when one daemon goes."""

    def __init__(self, where: str, ada: Path, bob: Path) -> None:
        self.where = where
        self.ada = ada / where
        self.bob = bob / where
        self.history: dict[str, list[str]] = defaultdict(lambda: [NOTHING])
        self.conflicts: dict[str, set[str]] = {}
        self.contents: dict[str, bytes] = {}
        """By shape."""
        self._count = 0

    def token(self, path: str, size: int = 0) -> bytes:
        """Content that nobody else has."""
        self._count += 1
        told = f"{self.where}/{path} #{self._count}\n".encode()
        seed = int.from_bytes(hashlib.sha256(told).digest()[:7])
        return told + incompressible(size, seed=seed) if size else told

    # --- what users do -----------------------------------------------------------------------

    def write(self, root: Path, path: str, content: bytes | None = None, *, size: int = 0) -> None:
        content = self.token(path, size) if content is None else content
        self._make_above(root, path)
        (root / path).write_bytes(content)
        self.history[path].append(shape_of_content(content))
        self.contents[shape_of_content(content)] = content

    def link(self, root: Path, path: str, target: str) -> None:
        self._make_above(root, path)
        (root / path).symlink_to(target)
        self.history[path].append(shape_of_link(target))

    def make_directory(self, root: Path, path: str) -> None:
        self._make_above(root, f"{path}/")

    def _make_above(self, root: Path, path: str) -> None:
        for above in _above(path):
            (root / above).mkdir(parents=True, exist_ok=True)
            if self.history[above][-1] != DIRECTORY:
                self.history[above].append(DIRECTORY)

    def delete(self, root: Path, path: str) -> None:
        target = root / path
        if target.is_dir() and not target.is_symlink():
            for child in sorted(os.listdir(target)):
                self.delete(root, f"{path}/{child}")
            target.rmdir()
        else:
            target.unlink()
        self.history[path].append(NOTHING)

    def move(self, root: Path, old: str, new: str) -> None:
        self._make_above(root, new)
        (root / old).rename(root / new)
        for path in [path for path in self.history if path == old or path.startswith(f"{old}/")]:
            self.history[new + path.removeprefix(old)].append(self.history[path][-1])
            self.history[path].append(NOTHING)

    def both_write(self, path: str) -> None:
        before = len(self.history[path])
        self.write(self.bob, path)
        self.write(self.ada, path)
        self.conflicts[path] = set(self.history[path][before:])

    # --- what must be ------------------------------------------------------------------------

    def torn(self, tree: Tree) -> list[str]:
        """What nobody ever wrote at its path."""
        copies = set().union(*self.conflicts.values())
        found = []
        for raw, node in tree.items():
            path, seen = os.fsdecode(raw), shape(node)
            known = copies if _COPY.search(path) else set(self.history.get(path, ()))
            if seen not in known:
                found.append(f"{path}: {seen}")
        return found

    def wrong_at_the_end(self, tree: Tree) -> list[str]:
        """Against what both users did, once everything has come to rest."""
        seen = {os.fsdecode(path): shape(node) for path, node in tree.items()}
        copies = {path: told for path, told in seen.items() if _COPY.search(path)}
        wanted = {path: shapes[-1] for path, shapes in self.history.items()}
        for path, either in self.conflicts.items():
            own = {one for one in copies if _COPY.sub("", one) == path}
            if len(own) != 1 or {seen.get(path, NOTHING), *(copies[one] for one in own)} != either:
                return [f"{path}: {seen.get(path)} and the copies {sorted(own)}"]
            wanted[path] = seen[path]
            wanted.update((one, copies[one]) for one in own)
        live = {path: told for path, told in wanted.items() if told != NOTHING}
        return [
            f"{path}: {seen.get(path, NOTHING)} instead of {live.get(path, NOTHING)}"
            for path in sorted(seen.keys() | live.keys())
            if seen.get(path) != live.get(path)
        ]

    def tree(self, root: Path) -> Tree:
        return snapshot(root) if root.is_dir() else {}


def _above(path: str) -> list[str]:
    """The directories that hold `path`, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


class Scenario(NamedTuple):
    name: str
    base: Callable[[Changes], None]
    change: Callable[[Changes], None]


def _first_base(_of: Changes) -> None:
    """Nothing is there yet."""


def _first_sync(of: Changes) -> None:
    for number in range(8):
        of.write(of.ada, f"new/{number}")
    of.write(of.ada, "new/large", size=LARGE)
    of.write(of.ada, "new/tool")
    (of.ada / "new/tool").chmod(0o755)
    of.link(of.ada, "new/link", "tool")
    of.make_directory(of.ada, "new/an/empty directory")
    for number in range(4):
        of.write(of.bob, f"own/{number}")
    of.write(of.bob, "own/large", size=LARGE)


def _edits_base(of: Changes) -> None:
    for name in ("1", "2", "3", "of bob", "tool", "to be a link", "to be a directory"):
        of.write(of.ada, f"edited/{name}")
    of.write(of.ada, "edited/large", of.token("large", LARGE))
    of.link(of.ada, "edited/link", "1")
    of.make_directory(of.ada, "edited/to be a file")


def _edits(of: Changes) -> None:
    for name in ("1", "2", "3"):
        of.write(of.ada, f"edited/{name}")
    of.write(of.bob, "edited/of bob")
    (of.ada / "edited/tool").chmod(0o755)
    large = (of.ada / "edited/large").read_bytes()
    of.write(of.ada, "edited/large", large[: LARGE // 2] + of.token("mid") + large[LARGE // 2 :])
    of.delete(of.ada, "edited/link")
    of.link(of.ada, "edited/link", "2")
    of.delete(of.ada, "edited/to be a link")
    of.link(of.ada, "edited/to be a link", "3")
    of.delete(of.ada, "edited/to be a directory")
    of.write(of.ada, "edited/to be a directory/child")
    of.delete(of.ada, "edited/to be a file")
    of.write(of.ada, "edited/to be a file")


def _deletions_base(of: Changes) -> None:
    for name in ("1", "2", "stays", "of bob", "directory/1", "directory/below/2", "of bob too/1"):
        of.write(of.ada, f"deleted/{name}")
    of.make_directory(of.ada, "deleted/empty")


def _deletions(of: Changes) -> None:
    for name in ("1", "2", "directory", "empty"):
        of.delete(of.ada, f"deleted/{name}")
    for name in ("of bob", "of bob too"):
        of.delete(of.bob, f"deleted/{name}")


def _conflicts_base(of: Changes) -> None:
    for name in ("1", "2.txt", "deleted by ada", "deleted by bob"):
        of.write(of.ada, f"disputed/{name}")


def _conflicts(of: Changes) -> None:
    of.both_write("disputed/1")
    of.both_write("disputed/2.txt")
    of.delete(of.ada, "disputed/deleted by ada")
    of.write(of.bob, "disputed/deleted by ada")
    of.delete(of.bob, "disputed/deleted by bob")
    of.write(of.ada, "disputed/deleted by bob")


def _moves_base(of: Changes) -> None:
    for name in ("1", "2", "below/3"):
        of.write(of.ada, f"moved/old/{name}")
    of.write(of.ada, "moved/old/large", size=LARGE)
    of.write(of.ada, "moved/of bob")
    of.write(of.ada, "moved/stays", size=LARGE)


def _moves(of: Changes) -> None:
    of.move(of.ada, "moved/old", "moved/new")
    of.move(of.bob, "moved/of bob", "moved/bob's")
    of.write(of.ada, "moved/copy", (of.ada / "moved/stays").read_bytes())


SCENARIOS = (
    Scenario("first-sync", _first_base, _first_sync),
    Scenario("edits", _edits_base, _edits),
    Scenario("deletions", _deletions_base, _deletions),
    Scenario("conflicts", _conflicts_base, _conflicts),
    Scenario("moves", _moves_base, _moves),
)
