"""A folder in memory, and its user who works on it behind the disk's back."""

import contextlib
import errno
import heapq
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import blake3

from p2psync.core.entry import SINGLE_CHUNK_MAX, Chunk, Fingerprint, Kind, Manifest
from p2psync.core.ids import Digest
from p2psync.core.manifest import content_id_of_manifest, offsets_of
from p2psync.core.relpath import RelPath, ancestors, parent
from p2psync.files.chunker import cut
from p2psync.ports import (
    Action,
    FileChangedError,
    Hashed,
    Known,
    Outcome,
    Place,
    Problem,
    Result,
    RootUnavailableError,
    Seen,
    StagedPlace,
    Step,
    Walk,
    Walking,
    Whole,
)

MOST_CHANGED = 10_000
"""So many that a part of a walk tells of at most."""

_DIRECTORY = Fingerprint(Kind.DIRECTORY, 0, 0, 0, 0, executable=False, racy=False)


@dataclass(frozen=True)
class _Node:
    kind: Kind
    data: bytes = b""
    """Of a file its bytes, of a symlink its target."""
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    executable: bool = False


@dataclass
class _Listed:
    """A directory that is being gone through."""

    inode: int
    """As a handle, it is of the directory wherever that goes; 0: the top."""
    prefix: str
    places: list[str]
    """Names that it had when it was entered, and with a slash those of directories among them that
    are to be entered; a heap."""
    found: dict[str, int]
    """Inodes of those."""


class _Walking:
    """`ports.Walking`, with what a real walk does not see: what was made in a directory after that
    was listed."""

    def __init__(self, disk: "MemoryDisk", under: RelPath | None) -> None:
        self.is_behind = False
        self._disk = disk
        self._under = under
        self._is_begun = False
        self._where: dict[int, str] = {}
        """Of the handles, during a part."""
        self._open: list[_Listed] = []
        """From the top to where the walk is."""
        self._at = 0
        """How much of what is known is used up, when behind."""
        self._blind: set[str] = set()
        """What vanished after it was listed: left to the next walk, with all below."""

    def go_on(self, known: Known, *, last: bool) -> Walk:
        with self._disk._part(begins=not self._is_begun):
            self._where = self._disk._directories()
            if not self._is_begun:
                self._begin()
            return self._go_on(known, last=last)

    def close(self) -> None:
        pass

    def _begin(self) -> None:
        self._is_begun = True
        if self._under is None:
            self._enter(0, "")
        elif self._disk._find(self._under) is not None:
            above = parent(self._under)
            node = None if above is None else self._disk._find(above)
            prefix = "" if above is None else f"{above}/"
            name = self._under.removeprefix(prefix)
            self._open.append(_Listed(0 if node is None else node.inode, prefix, [name], {}))

    def _enter(self, inode: int, prefix: str) -> None:
        names = self._disk._names_below(self._where[inode])
        self._open.append(_Listed(inode, prefix, names, {}))

    def _go_on(self, known: Known, *, last: bool) -> Walk:
        changed: list[Seen] = []
        missing: list[RelPath] = []
        at = self._at
        while self._open and len(changed) < MOST_CHANGED:
            here = self._open[-1]
            if not here.places:
                self._open.pop()
                continue
            path = RelPath(here.prefix + here.places[0])
            while at < len(known) and known[at][0] < path:
                missing += self._gone(known[at][0])
                at += 1
            if at == len(known) and not last:
                break
            place = heapq.heappop(here.places)
            if place.endswith("/"):
                self._descend(here, place[:-1])
                continue
            mark = None
            if at < len(known) and known[at][0] == path:
                mark = known[at][1]
                at += 1
            if (found := self._look(here, place)) is not None:
                seen = self._disk._seen(path, found)
                if mark is None or not mark.unchanged(seen.fingerprint):
                    changed.append(seen)
        self.is_behind = bool(self._open) and (at < len(known) or last)
        self._at = at if self.is_behind else 0
        if not self._open:
            for path, _ in known[at:]:
                missing += self._gone(path)
        return Walk(changed, missing, [])

    def _look(self, here: _Listed, name: str) -> _Node | None:
        node = self._node(here, name)
        if node is None:
            self._blind.add(here.prefix + name)
        elif node.kind == Kind.DIRECTORY:
            here.found[name] = node.inode
            heapq.heappush(here.places, f"{name}/")
        return node

    def _descend(self, here: _Listed, name: str) -> None:
        node = self._node(here, name)
        if node is None or node.kind != Kind.DIRECTORY or node.inode != here.found[name]:
            self._blind.add(here.prefix + name)
        else:
            self._enter(node.inode, f"{here.prefix}{name}/")

    def _node(self, here: _Listed, name: str) -> _Node | None:
        where = self._where.get(here.inode)
        return None if where is None else self._disk._find(RelPath(where + name))

    def _gone(self, path: RelPath) -> list[RelPath]:
        return [] if self._blind.intersection([*ancestors(path), path]) else [path]


class MemoryDisk:
    """`ports.Disk`. `granularity_ns` is the step of the times that it gives to files."""

    def __init__(self, now_ns: Callable[[], int], *, granularity_ns: int = 1) -> None:
        self._now_ns = now_ns
        self._granularity_ns = granularity_ns
        self._nodes: dict[RelPath, _Node] = {}
        self._staged: dict[str, bytearray] = {}
        self._trash: list[bytes] = []
        self._set_aside: list[bytes] = []
        self.written: set[str] = set()
        """Paths that a program has open for writing."""
        self._next_inode = 1
        self._lock = threading.RLock()
        self._interventions: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._errors: dict[tuple[str, str], OSError] = {}
        self.calls: list[str] = []
        self.root_is_lost = False

    # --- what tests arrange ------------------------------------------------------------------

    def before(self, method: str, act: Callable[[], None]) -> None:
        """Do `act` at the start of the next call of `method`, as someone would who is quick."""
        self._interventions[method].append(act)

    def fail(self, method: str, path: str, code: int = errno.EACCES) -> None:
        """From now on `method` fails for the path or staging name ("" for all)."""
        self._errors[method, path] = OSError(code, os.strerror(code))

    def mend(self) -> None:
        """Nothing fails any more."""
        self._errors.clear()

    def lose_root(self) -> None:
        self.root_is_lost = True

    def _begin(self, method: str) -> None:
        self._called(method)
        if self.root_is_lost:
            raise RootUnavailableError("The directory is gone.")
        self._check(method, "")

    def _called(self, method: str) -> None:
        self.calls.append(method)
        acts, self._interventions[method] = self._interventions[method], []
        for act in acts:
            act()

    def _check(self, method: str, path: str) -> None:
        if (error := self._errors.get((method, path))) is not None:
            raise error

    # --- the user ----------------------------------------------------------------------------

    def write(self, path: str, data: bytes | str, *, mtime_ns: int | None = None) -> None:
        """Save a file, as an editor does that rewrites it in place; directories are made."""
        with self._lock:
            rel = self._with_parents(path)
            old = self._nodes.get(rel)
            now = self._time()
            self._nodes[rel] = _Node(
                Kind.FILE,
                data.encode() if isinstance(data, str) else data,
                now if mtime_ns is None else mtime_ns,
                now,
                old.inode if old is not None and old.kind == Kind.FILE else self._inode(),
                executable=old is not None and old.executable,
            )

    def link_elsewhere(self, path: str) -> None:
        """Give the file another name outside: of what is here, only the time of change tells."""
        with self._lock:
            rel = RelPath(path)
            self._nodes[rel] = replace(self._nodes[rel], ctime_ns=self._time())

    def rot(self, path: str, *, at: int = 0) -> None:
        """Change a byte of a file, and nothing that a stat tells."""
        with self._lock:
            node = self._nodes[RelPath(path)]
            data = bytearray(node.data)
            data[at] ^= 1
            self._nodes[RelPath(path)] = replace(node, data=bytes(data))

    def link(self, path: str, target: str) -> None:
        with self._lock:
            now = self._time()
            node = _Node(Kind.SYMLINK, target.encode(), now, now, self._inode())
            self._nodes[self._with_parents(path)] = node

    def make_directory(self, path: str) -> None:
        with self._lock:
            rel = self._with_parents(path)
            self._nodes.setdefault(rel, _Node(Kind.DIRECTORY, inode=self._inode()))

    def _with_parents(self, path: str) -> RelPath:
        rel = RelPath(path)
        above = parent(rel)
        if above is not None and above not in self._nodes:
            self.make_directory(above)
        return rel

    def remove(self, path: str) -> None:
        """A file, a symlink, or a directory with all it holds."""
        with self._lock:
            for each in self._at_and_below(RelPath(path)):
                del self._nodes[each]

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            for each in self._at_and_below(RelPath(old)):
                node = self._nodes.pop(each)
                if each == old:
                    node = replace(node, ctime_ns=self._time())
                self._nodes[RelPath(new + each.removeprefix(old))] = node

    def hard_link(self, path: str, other: str) -> None:
        """A second name of the file, which edits do not keep."""
        with self._lock:
            node = replace(self._nodes[RelPath(path)], ctime_ns=self._time())
            self._nodes[RelPath(path)] = self._nodes[self._with_parents(other)] = node

    def make_executable(self, path: str) -> None:
        with self._lock:
            node = self._nodes[RelPath(path)]
            changed = replace(node, executable=True, ctime_ns=self._time())
            self._nodes[RelPath(path)] = changed

    def tree(self) -> dict[str, bytes | str | None]:
        """All that people see: bytes of a file, target of a symlink, None for a directory."""
        with self._lock:
            return {str(path): _shown(node) for path, node in sorted(self._nodes.items())}

    def read_text(self, path: str) -> str:
        return self._nodes[RelPath(path)].data.decode()

    def is_executable(self, path: str) -> bool:
        return self._nodes[RelPath(path)].executable

    def staged_bytes(self, name: str) -> bytes:
        return bytes(self._staged[name])

    def trash(self) -> list[bytes]:
        return self._trash

    def set_aside(self) -> list[bytes]:
        """Contents of the files that were damaged."""
        return self._set_aside

    # --- inside ------------------------------------------------------------------------------

    def _time(self) -> int:
        return self._now_ns() // self._granularity_ns * self._granularity_ns

    def _inode(self) -> int:
        self._next_inode += 1
        return self._next_inode

    def _at_and_below(self, path: RelPath) -> list[RelPath]:
        return [each for each in self._nodes if each == path or each.startswith(f"{path}/")]

    def _children(self, path: RelPath) -> list[RelPath]:
        return [each for each in self._nodes if each.startswith(f"{path}/")]

    def _find(self, path: RelPath) -> _Node | None:
        """None also where a component above is no directory."""
        above = parent(path)
        if above is not None:
            directory = self._find(above)
            if directory is None or directory.kind != Kind.DIRECTORY:
                return None
        return self._nodes.get(path)

    def _mark(self, node: _Node) -> Fingerprint:
        if node.kind == Kind.DIRECTORY:
            return _DIRECTORY
        recent = self._now_ns() - self._granularity_ns
        return Fingerprint(
            node.kind,
            len(node.data),
            node.mtime_ns,
            node.ctime_ns,
            node.inode,
            node.executable,
            racy=max(node.mtime_ns, node.ctime_ns) > recent and self._granularity_ns > 1,
        )

    def _seen(self, path: RelPath, node: _Node) -> Seen:
        target = node.data if node.kind == Kind.SYMLINK else b""
        return Seen(path, self._mark(node), target)

    # --- Disk --------------------------------------------------------------------------------

    def check_root(self) -> None:
        self._begin("check_root")

    def walk(self, under: RelPath | None = None) -> Walking:
        return _Walking(self, under)

    @contextlib.contextmanager
    def _part(self, *, begins: bool) -> Iterator[None]:
        """A part of a walk, during which nobody changes anything. The first looks at the root,
        which the others have open."""
        with self._lock:
            if begins:
                self._begin("walk")
            else:
                self._called("walk")
                self._check("walk", "")
            yield

    def _directories(self) -> dict[int, str]:
        """By their inodes, where what is in them is now; 0: the top."""
        return {0: ""} | {
            node.inode: f"{path}/"
            for path, node in self._nodes.items()
            if node.kind == Kind.DIRECTORY and self._find(path) is not None
        }

    def _names_below(self, prefix: str) -> list[str]:
        """Of what a directory holds, in order."""
        names = (path.removeprefix(prefix) for path in self._nodes if path.startswith(prefix))
        return sorted(
            name for name in names if "/" not in name and self._find(RelPath(prefix + name))
        )

    def look(self, paths: Sequence[RelPath]) -> dict[RelPath, Seen | None]:
        with self._lock:
            self._begin("look")
            found = {path: self._find(path) for path in paths}
            return {path: self._seen(path, node) if node else None for path, node in found.items()}

    def at_once(self) -> AbstractContextManager[None]:
        self._begin("at_once")
        return nullcontext()

    def hash_file(self, path: RelPath, *, known: Manifest = (), fresh: bool = False) -> Hashed:
        with self._lock:
            self._begin("hash_file")
            self._check("hash_file", path)
            node = self._file(path)
            mark = self._mark(node)
            if len(node.data) <= SINGLE_CHUNK_MAX:
                return Hashed(Digest(blake3.blake3(node.data).digest()), None, mark)
            manifest = chunked(node.data)
            return Hashed(content_id_of_manifest(manifest), manifest, mark)

    def _file(self, path: RelPath) -> _Node:
        node = self._find(path)
        if node is None or node.kind != Kind.FILE:
            raise FileChangedError(f"“{path}” is no file.")
        return node

    def is_being_written(self, path: RelPath) -> bool:
        with self._lock:
            self._begin("is_being_written")
            self._file(path)
            return path in self.written

    def read(self, place: Place, *, fresh: bool = False) -> bytes:
        with self._lock:
            self._begin("read")
            self._check("read", place.path)
            data = self._file(place.path).data[place.offset : place.offset + place.size]
            if len(data) != place.size:
                raise FileChangedError(f"“{place.path}” is shorter.")
            return data

    def stage_whole(self, files: Sequence[Whole]) -> None:
        with self._lock:
            self._begin("stage_whole")
            for name, data, _ in files:
                self._check("stage_whole", name)
                self._staged[name] = bytearray(data)

    def _staging(self, name: str, size: int) -> bytearray:
        if len(self._staged.get(name, b"")) != size or name not in self._staged:
            self._staged[name] = bytearray(size)
        return self._staged[name]

    def prepare(self, name: str, manifest: Manifest) -> list[bool]:
        with self._lock:
            self._begin("prepare")
            staged = self._staging(name, sum(chunk.size for chunk in manifest))
            return [
                _digest(staged[at : at + chunk.size]) == chunk.digest
                for at, chunk in zip(offsets_of(manifest), manifest, strict=True)
            ]

    def stage_pieces(self, name: str, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        with self._lock:
            self._begin("stage_pieces")
            self._check("stage_pieces", name)
            for offset, data in pieces:
                self._prepared(name)[offset : offset + len(data)] = data

    def _prepared(self, name: str) -> bytearray:
        if name not in self._staged:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._staged[name]

    def stage_copy(
        self, name: str, offset: int, chunks: Sequence[Chunk], source: Place
    ) -> list[bool]:
        with self._lock:
            self._begin("stage_copy")
            staged = self._prepared(name)
            done = []
            for at, chunk in zip(offsets_of(tuple(chunks)), chunks, strict=True):
                try:
                    data = self.read(Place(source.path, source.offset + at, chunk.size))
                except FileChangedError:
                    data = b""
                done.append(_digest(data) == chunk.digest)
                if done[-1]:
                    staged[offset + at : offset + at + chunk.size] = data
            return done

    def read_staged(self, place: StagedPlace) -> bytes:
        with self._lock:
            self._begin("read_staged")
            if place.name not in self._staged:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return bytes(self._staged[place.name][place.offset : place.offset + place.size])

    def unstage(self, names: Iterable[str]) -> None:
        with self._lock:
            self._begin("unstage")
            for name in names:
                self._staged.pop(name, None)

    def staged_names(self) -> list[str]:
        with self._lock:
            self._begin("staged_names")
            return sorted(self._staged)

    def commit(self, steps: Sequence[Step], *, damaged: bool = False) -> list[Result]:
        with self._lock:
            self._begin("commit")
            before = len(self._trash)
            results = [self._carry_out(step) for step in steps]
            if damaged:
                self._set_aside += self._trash[before:]
                del self._trash[before:]
            return results

    def make_durable(self, paths: Sequence[RelPath]) -> None:
        with self._lock:
            self._begin("make_durable")
            for path in paths:
                self._check("make_durable", path)

    def _carry_out(self, step: Step) -> Result:
        try:
            self._check("commit", step.path)
        except OSError as error:
            return Result(step, Outcome.FAILED, problem=self.kind_of_problem(error, step.path))
        above = parent(step.path)
        directory = None if above is None else self._find(above)
        if above is not None and (directory is None or directory.kind != Kind.DIRECTORY):
            gone = step.action is Action.REMOVE
            return Result(step, Outcome.DONE if gone else Outcome.NO_PARENT)
        found = self._find(step.path)
        if step.action is Action.MOVE:
            return self._move(step, found)
        if step.action is Action.REMOVE and found is None:
            return Result(step, Outcome.DONE)
        is_directory = found is not None and found.kind == Kind.DIRECTORY
        if step.action is Action.MAKE_DIRECTORY and is_directory:
            return Result(step, Outcome.DONE, _DIRECTORY)
        if not _is_expected(None if found is None else self._mark(found), step.expected):
            return Result(step, Outcome.CHANGED)
        if step.action is Action.SET_METADATA:
            assert found is not None
            new = replace(
                found,
                mtime_ns=step.entry.mtime_ns,
                executable=step.entry.executable,
                ctime_ns=self._time(),
            )
            self._nodes[step.path] = new
            return Result(step, Outcome.DONE, self._mark(new))
        if is_directory and self._children(step.path):
            return Result(step, Outcome.NOT_EMPTY)
        return self._replace(step, found)

    def _move(self, step: Step, found: _Node | None) -> Result:
        assert step.source is not None
        node = self._find(step.source)
        if found is not None or node is None or not _is_expected(self._mark(node), step.expected):
            return Result(step, Outcome.CHANGED)
        self._nodes[step.path] = replace(node, ctime_ns=self._time())
        del self._nodes[step.source]
        return Result(step, Outcome.DONE, self._mark(self._nodes[step.path])._replace(racy=False))

    def _replace(self, step: Step, found: _Node | None) -> Result:
        new = self._new_node(step)
        if new is None and step.action is not Action.REMOVE:
            error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return Result(step, Outcome.FAILED, problem=self.kind_of_problem(error, step.path))
        if found is not None and found.kind == Kind.FILE:
            self._trash.append(found.data)
        if new is None:
            del self._nodes[step.path]
            return Result(step, Outcome.DONE)
        self._nodes[step.path] = new
        mark = self._mark(new)
        return Result(step, Outcome.DONE, mark._replace(racy=False))

    def _new_node(self, step: Step) -> _Node | None:
        entry = step.entry
        if step.action is Action.REMOVE:
            return None
        if entry.kind == Kind.DIRECTORY:
            return _Node(Kind.DIRECTORY, inode=self._inode())
        if entry.kind == Kind.SYMLINK:
            return _Node(Kind.SYMLINK, entry.content, 0, self._time(), self._inode())
        staged = self._staged.pop(step.staged, None)
        if staged is None:
            return None
        return _Node(
            Kind.FILE,
            bytes(staged),
            entry.mtime_ns,
            self._time(),
            self._inode(),
            entry.executable,
        )

    def kind_of_problem(self, error: OSError, path: str) -> Problem:
        return Problem(path, error.strerror or "", "Try something else.")

    def prune_trash(self) -> None:
        self._trash.clear()


def _is_expected(found: Fingerprint | None, expected: Fingerprint | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return found[:6] == expected[:6]


def _digest(data: bytes | bytearray) -> bytes:
    return blake3.blake3(bytes(data)).digest()


def _shown(node: _Node) -> bytes | str | None:
    if node.kind == Kind.DIRECTORY:
        return None
    return node.data if node.kind == Kind.FILE else node.data.decode()


def chunked(data: bytes) -> Manifest:
    """The chunks that every device cuts these bytes into."""

    def read_into(view: memoryview, offset: int) -> None:
        view[:] = data[offset : offset + len(view)]

    return tuple(
        Chunk(Digest(blake3.blake3(chunk).digest()), len(chunk))
        for chunk in cut(read_into, len(data))
    )
