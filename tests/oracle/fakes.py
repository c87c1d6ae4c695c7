"""Synchronizers within the process, on real directories: one without fault, and some with one each.

Each device has an index of versions: what it holds at a path, which writes that has seen, and which
writes were preserved. Devices that reach each other merge when the runner lets them `breathe`.
"""

import os
import random
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.oracle.actions import Abilities
from tests.oracle.tree import Found, Kind, read_tree, same

Vector = Mapping[int, int]
Held = tuple[Kind, bytes, bool] | None
"""Kind, content and execute bit; None: deleted."""


@dataclass(frozen=True, slots=True)
class Version:
    held: Held
    origin: tuple[int, int]
    """The write that made the content."""
    vector: Vector
    dot: tuple[int, int]
    """The change that made this version."""

    def covers(self, other: "Version") -> bool:
        replica, count = other.dot
        return self.vector.get(replica, 0) >= count

    def knows(self, other: "Version") -> bool:
        return all(self.vector.get(key, 0) >= count for key, count in other.vector.items())

    def replaced(self, other: "Version") -> bool:
        """Whether the write of the other's content was known to whoever made this."""
        replica, count = other.origin
        return self.origin != other.origin and self.vector.get(replica, 0) >= count


def _joined(one: Vector, other: Vector) -> Vector:
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in one.keys() | other.keys()}


def _rank(version: Version) -> tuple[object, ...]:
    held = version.held
    kind = "" if held is None else held[0].name
    return (held is not None, kind == "DIRECTORY", version.origin, held is not None and held[2])


@dataclass(slots=True)
class Replica:
    number: int
    root: Path
    index: dict[str, Version] = field(default_factory=dict)
    counter: int = 0


class Perfect:
    name = "perfect"
    version = "0"
    abilities = Abilities(empty_directories=False)

    def __init__(self, base: Path, devices: int, *, seed: int = 0, eager: float = 0.3) -> None:
        self.replicas = []
        self.on_write: Callable[[int], None] = lambda device: None
        """Called whenever something was written to a device: somebody may look just then."""
        self._random = random.Random(seed)
        self._eager = eager
        self._group: frozenset[int] = frozenset()
        self._down: set[int] = set()
        for number in range(devices):
            root = base / f"root-{number}"
            root.mkdir(parents=True)
            self.replicas.append(Replica(number, root))
        self.roots: Sequence[Path] = [replica.root for replica in self.replicas]

    def is_private(self, path: str) -> bool:
        return path.startswith(".fake")

    def stop(self, device: int) -> None:
        self._down.add(device)

    def kill(self, device: int) -> None:
        self._down.add(device)

    def start(self, device: int) -> None:
        self._down.discard(device)

    def part(self, group: frozenset[int]) -> None:
        self._group = group

    def heal(self) -> None:
        self._group = frozenset()

    def breathe(self) -> None:
        if self._random.random() < self._eager:
            one, other = self._random.sample(self.replicas, 2)
            if (one.number in self._group) == (other.number in self._group):
                self.meet(one, other)

    def settle(self, within: float) -> str:
        for _ in range(2 * len(self.replicas)):
            for replica in self.replicas[1:]:
                self.meet(self.replicas[0], replica)
            if same([read_tree(replica.root) for replica in self.replicas]):
                return ""
        return "the trees still differ"

    def close(self) -> None:
        pass

    def meet(self, one: Replica, other: Replica) -> None:
        """Two devices come to hold the same, as far as they are not stopped."""
        if self._down & {one.number, other.number}:
            return
        self.scan(one)
        self.scan(other)
        merged: dict[str, Version] = {}
        copies: dict[str, Version] = {}
        for path in sorted(one.index.keys() | other.index.keys()):
            ours, theirs = one.index.get(path), other.index.get(path)
            if ours is None or theirs is None:
                known = ours or theirs
                assert known is not None
                merged[path] = known
            else:
                merged[path] = self.merge(path, ours, theirs, copies)
        for name, copy in copies.items():
            merged.setdefault(name, copy)
        for path in sorted(merged):
            above = merged.get(path.rpartition("/")[0])
            if merged[path].held is not None and above is not None:
                self._keep_above(merged, path)
        for replica in (one, other):
            self.apply(replica, merged)

    def merge(
        self, path: str, ours: Version, theirs: Version, copies: dict[str, Version]
    ) -> Version:
        if ours.covers(theirs) != theirs.covers(ours):
            newer = ours if ours.covers(theirs) else theirs
            return replace(newer, vector=_joined(ours.vector, theirs.vector))
        winner, loser = sorted((ours, theirs), key=_rank, reverse=True)
        if ours.covers(theirs):
            # Joined on different ways; the one that knows more wins, else any.
            if loser.knows(winner) and not winner.knows(loser):
                winner, loser = loser, winner
        elif loser.replaced(winner) and not winner.replaced(loser):
            winner, loser = loser, winner
        is_conflict = (
            winner.vector != loser.vector
            and loser.held is not None
            and winner.held is not None
            and loser.held[0] is not Kind.DIRECTORY
            and winner.held[:2] != loser.held[:2]
        )
        if is_conflict and self.preserves(winner, loser):
            copies[self.copy_name(path, loser)] = _copy(loser)
        return replace(winner, vector=_joined(ours.vector, theirs.vector))

    def preserves(self, winner: Version, loser: Version) -> bool:
        """A content that the winner's writer has replaced is no loss."""
        return not winner.replaced(loser)

    def copy_name(self, path: str, loser: Version) -> str:
        return f"{path} (conflict {loser.origin[0]}-{loser.origin[1]})"

    def _keep_above(self, merged: dict[str, Version], path: str) -> None:
        """A directory in which something is kept is kept; a file in its place makes room."""
        parent = path.rpartition("/")[0]
        while parent:
            version = merged.get(parent)
            held = version.held if version else None
            if version is not None and (held is None or held[0] is not Kind.DIRECTORY):
                if held is not None:
                    merged.setdefault(self.copy_name(parent, version), _copy(version))
                merged[parent] = replace(version, held=(Kind.DIRECTORY, b"", False))
            parent = parent.rpartition("/")[0]

    def scan(self, replica: Replica) -> None:
        """What the user changed on the disk becomes new versions."""
        tree = read_tree(replica.root, self.is_private)
        for path in sorted(tree.keys() | replica.index.keys()):
            held = self.read(replica.root, path, tree.get(path))
            known = replica.index.get(path)
            if held == (known.held if known else None):
                continue
            replica.counter += 1
            dot = (replica.number, replica.counter)
            vector = _joined(known.vector if known else {}, dict([dot]))
            same_content = known and known.held and held and known.held[:2] == held[:2]
            origin = known.origin if known and (same_content or held is None) else dot
            replica.index[path] = Version(held, origin, vector, dot)

    def read(self, root: Path, path: str, found: Found | None) -> Held:
        if found is None:
            return None
        at = root / path
        if found.kind is Kind.DIRECTORY:
            return found.kind, b"", False
        if found.kind is Kind.LINK:
            return found.kind, os.fsencode(os.readlink(at)), False
        return found.kind, at.read_bytes(), bool(at.stat().st_mode & stat.S_IXUSR)

    def apply(self, replica: Replica, merged: Mapping[str, Version]) -> None:
        changed = [
            path
            for path, version in merged.items()
            if _held_of(replica.index.get(path)) != version.held
        ]
        for path in sorted(changed, reverse=True):
            self.remove(replica, path)
        for path in sorted(changed):
            held = merged[path].held
            if held is not None:
                self.write(replica, path, held)
        replica.index = dict(merged)

    def remove(self, replica: Replica, path: str) -> None:
        at = replica.root / path
        version = replica.index.get(path)
        if version is None or version.held is None or not os.path.lexists(at):
            return
        if version.held[0] is Kind.DIRECTORY:
            shutil.rmtree(at)
        else:
            at.unlink()
            self.on_write(replica.number)

    def write(self, replica: Replica, path: str, held: tuple[Kind, bytes, bool]) -> None:
        kind, content, executable = held
        at = replica.root / path
        if kind is Kind.DIRECTORY:
            at.mkdir(exist_ok=True)
        elif kind is Kind.LINK:
            os.symlink(content, at)
        else:
            staged = replica.root / ".fake"
            staged.write_bytes(content)
            staged.chmod(0o755 if executable else 0o644)
            staged.rename(at)
        self.on_write(replica.number)


def _copy(version: Version) -> Version:
    """As if only the write that made the content had ever been."""
    replica, count = version.origin
    return Version(version.held, version.origin, {replica: count}, version.origin)


def _held_of(version: Version | None) -> Held:
    return version.held if version else None


class LastWriterWins(Perfect):
    """The loser of a conflict is dropped."""

    def preserves(self, winner: Version, loser: Version) -> bool:
        return False


class Resurrecting(Perfect):
    """A deletion is forgotten when another device still has the file."""

    def merge(
        self, path: str, ours: Version, theirs: Version, copies: dict[str, Version]
    ) -> Version:
        for gone, live in ((ours, theirs), (theirs, ours)):
            if gone.held is None and live.held is not None:
                return replace(live, vector=_joined(ours.vector, theirs.vector))
        return super().merge(path, ours, theirs, copies)


class Duplicating(Perfect):
    """Each device that settles a conflict gives the copy another name."""

    _settled = 0

    def copy_name(self, path: str, loser: Version) -> str:
        self._settled += 1
        return f"{super().copy_name(path, loser)} {self._settled}"

    def merge(
        self, path: str, ours: Version, theirs: Version, copies: dict[str, Version]
    ) -> Version:
        merged = super().merge(path, ours, theirs, copies)
        for copy in list(copies.values()):
            copies[f"{path} (conflict {self._settled + 1000})"] = copy
        return merged


class CryingConflict(Perfect):
    """Takes an edit that knew its predecessor for a conflict with it."""

    def merge(
        self, path: str, ours: Version, theirs: Version, copies: dict[str, Version]
    ) -> Version:
        winner = super().merge(path, ours, theirs, copies)
        loser = theirs if winner.origin == ours.origin else ours
        if loser.held and winner.held and loser.held[:2] != winner.held[:2]:
            copies[self.copy_name(path, loser)] = loser
        return winner


class WritingInPlace(Perfect):
    """A file shows while it is being written."""

    def write(self, replica: Replica, path: str, held: tuple[Kind, bytes, bool]) -> None:
        kind, content, _ = held
        if kind is Kind.FILE:
            at = replica.root / path
            at.write_bytes(content[: len(content) // 2])
            self.on_write(replica.number)
            at.unlink()
        super().write(replica, path, held)


class Mixing(Perfect):
    """A file gets the end of another one, once."""

    def write(self, replica: Replica, path: str, held: tuple[Kind, bytes, bool]) -> None:
        kind, content, executable = held
        if kind is Kind.FILE and replica.number == 1 and len(content) > 2000:
            content = content[:-8] + b"\0" * 8
        super().write(replica, path, (kind, content, executable))


class LeavingBehind(Perfect):
    """The last device hears of nothing any more."""

    def meet(self, one: Replica, other: Replica) -> None:
        if self.replicas[-1] not in (one, other):
            super().meet(one, other)


class ForgettingModes(Perfect):
    """The execute bit does not travel."""

    def read(self, root: Path, path: str, found: Found | None) -> Held:
        held = super().read(root, path, found)
        return held and (held[0], held[1], False)


class BlindlyReplacing(Perfect):
    """Often does not see that a user has just edited a file, and overwrites it."""

    def scan(self, replica: Replica) -> None:
        before = dict(replica.index)
        super().scan(replica)
        for path, version in before.items():
            now = replica.index[path].held
            are_files = version.held and now and version.held[0] is now[0] is Kind.FILE
            if are_files and self._random.random() < 0.5:
                replica.index[path] = version
