"""The `Disk` port on a real directory tree."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from p2psync.config import TrashConfig
from p2psync.core.entry import Chunk, Manifest
from p2psync.core.relpath import RelPath, parent
from p2psync.files import hashing, problems, staging
from p2psync.files.commit import Commit
from p2psync.files.moves import Mover
from p2psync.files.root import Root
from p2psync.files.staging import staging_area
from p2psync.files.syncing import Unsynced
from p2psync.files.syscalls import System
from p2psync.files.trash import Aside, Trash, discard_tree
from p2psync.files.tree import Tree
from p2psync.files.walk import Walking, look
from p2psync.ports import Hashed, Place, Problem, Result, Seen, StagedPlace, Step, Whole


class _Shared(threading.local):
    """What each thread has for itself."""

    tree: Tree | None = None
    """Of the block in which it is."""


class LocalDisk:
    """One folder's directory, adopted before with `adopt_root`. Blocking and thread-safe.

    Keeps no handle between calls, but for a walk that is under way and those `at_once`: each opens
    the root anew and makes sure that it is still the directory that was added. The first call also
    moves to the trash what a crash left displaced.
    """

    def __init__(
        self,
        root: Path,
        *,
        token: str,
        trash: TrashConfig,
        now_ns: Callable[[], int],
        system: System | None = None,
    ) -> None:
        self._system = system or System()
        self._root = Root(self._system, root, token)
        self._now_ns = now_ns
        self._mover = Mover(self._system)
        self._trash = Trash(trash, now_ns, self._mover)
        self._changing = threading.Lock()
        """Held by whoever changes the tree or the trash."""
        self._recovered = False
        self._mine = _Shared()

    @contextlib.contextmanager
    def _tree(self) -> Iterator[Tree]:
        if self._mine.tree is not None:
            yield self._mine.tree
            return
        with Tree(self._system, self._root.open()) as tree:
            if not self._recovered:
                with self._changing:
                    self._recover(tree)
            yield tree

    def _recover(self, tree: Tree) -> None:
        if not self._recovered:
            # On a read-only disk there is nothing that could be lost; reading goes on.
            with contextlib.suppress(OSError):
                self._trash.recover(tree)
            self._recovered = True

    def check_root(self) -> None:
        with self._tree():
            pass

    # --- reading -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        with self._tree() as tree:
            self._mine.tree = tree
            try:
                yield
            finally:
                self._mine.tree = None

    def walk(self, under: RelPath | None = None) -> Walking:
        return Walking(self._tree, under, self._now_ns)

    def look(self, paths: Sequence[RelPath]) -> dict[RelPath, Seen | None]:
        with self._tree() as tree:
            return look(tree, paths, now_ns=self._now_ns())

    def hash_file(self, path: RelPath, *, known: Manifest = (), fresh: bool = False) -> Hashed:
        with self._tree() as tree:
            return hashing.hash_file(tree, path, self._now_ns, known=known, fresh=fresh)

    def read(self, place: Place, *, fresh: bool = False) -> bytes:
        with self._tree() as tree:
            return hashing.read(tree, place, fresh=fresh)

    def is_being_written(self, path: RelPath) -> bool | None:
        with self._tree() as tree:
            return hashing.is_being_written(tree, path)

    # --- staging -----------------------------------------------------------------------------

    def stage_whole(self, files: Sequence[Whole]) -> None:
        with self._tree() as tree:
            staging.stage_whole(tree, files)

    def prepare(self, name: str, manifest: Manifest) -> list[bool]:
        with self._tree() as tree:
            return staging.prepare(tree, name, manifest)

    def stage_pieces(self, name: str, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        with self._tree() as tree:
            staging.stage_pieces(tree, name, pieces)

    def stage_copy(
        self, name: str, offset: int, chunks: Sequence[Chunk], source: Place
    ) -> list[bool]:
        with self._tree() as tree:
            return staging.stage_copy(tree, name, offset, chunks, source)

    def read_staged(self, place: StagedPlace) -> bytes:
        with self._tree() as tree:
            return staging.read_staged(tree, place)

    def unstage(self, names: Iterable[str]) -> None:
        with self._tree() as tree:
            staging.unstage(tree, names)

    def staged_names(self) -> list[str]:
        with self._tree() as tree:
            return staging.staged_names(tree)

    # --- changing ----------------------------------------------------------------------------

    def commit(self, steps: Sequence[Step], *, damaged: bool = False) -> list[Result]:
        with self._tree() as tree, self._changing:
            aside = Aside(tree, self._now_ns, damaged=damaged)
            commit = Commit(tree, self._mover, aside, self._now_ns)
            try:
                results = commit.run(steps)
            finally:
                slots = aside.close()
            if not commit.stranded:
                self._put_away(tree, slots, damaged=damaged)
            return results

    def make_durable(self, paths: Sequence[RelPath]) -> None:
        with self._tree() as tree, self._changing:
            unsynced = Unsynced(tree)
            for path in paths:
                unsynced.file(path)
                unsynced.directory(parent(path))
            unsynced.sync(one_by_one=len(paths) == 1)

    def _put_away(self, tree: Tree, slots: Sequence[str], *, damaged: bool) -> None:
        # What cannot be moved now is when the folder is opened next.
        with contextlib.suppress(OSError):
            for slot in slots:
                if self._trash.keeps or damaged:
                    self._trash.take(tree, slot)
                else:
                    discard_tree(staging_area(tree), slot)

    def prune_trash(self) -> None:
        with self._tree() as tree, self._changing:
            self._trash.prune(tree)

    def kind_of_problem(self, error: OSError, path: str) -> Problem:
        return problems.kind_of_problem(error, path)
