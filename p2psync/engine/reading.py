"""Reads and hashes files that a scan found changed."""

import asyncio
import contextlib
from collections.abc import Sequence

from p2psync.core.entry import Manifest
from p2psync.core.manifest import FOLLOWED_FROM
from p2psync.core.relpath import RelPath
from p2psync.engine.problems import Problems
from p2psync.errors import DamagedError
from p2psync.ports import Disk, FileChangedError, FolderIndex, Hashed, Problem, Seen

_WORTH_A_THREAD = 64 * 1024
"""Bytes of a file that take longer to read and hash than all else that is to be done for it."""


class Reader:
    def __init__(self, index: FolderIndex, disk: Disk, problems: Problems) -> None:
        self._index = index
        self._disk = disk
        self._problems = problems

    async def read(self, files: Sequence[Seen]) -> tuple[dict[RelPath, Hashed], list[RelPath]]:
        """In two worker threads; and those that changed meanwhile. Files that cannot be read
        become problems."""
        known = await self._known_cuts(files)
        tasks = [(file.path, known.get(file.path, ())) for file in files]
        # With little to hash in each file, two threads would only wait for one another.
        alone = sum(file.fingerprint.size for file in files) < len(files) * _WORTH_A_THREAD
        halves = [half for half in ([tasks] if alone else [tasks[::2], tasks[1::2]]) if half]
        done = await asyncio.gather(*(asyncio.to_thread(self._read_each, half) for half in halves))
        results: dict[RelPath, Hashed] = {}
        unsteady: list[RelPath] = []
        for part in done:
            for path, outcome in part:
                if isinstance(outcome, Hashed):
                    results[path] = outcome
                elif isinstance(outcome, Problem):
                    self._problems.set("read", outcome)
                else:
                    unsteady.append(path)
        return results, unsteady

    async def _known_cuts(self, files: Sequence[Seen]) -> dict[RelPath, Manifest]:
        """How the large ones were cut before, as far as the index can tell."""
        large = [file.path for file in files if file.fingerprint.size >= FOLLOWED_FROM]
        if not large:
            return {}
        known: dict[RelPath, Manifest] = {}
        for path, held in (await self._index.held(large)).items():
            with contextlib.suppress(DamagedError):
                known[path] = await self._index.manifest(held.entry.content) or ()
        return known

    async def make_durable(self, paths: Sequence[RelPath]) -> set[RelPath]:
        """Which of them could not be; they become problems."""
        problems = await asyncio.to_thread(self._sync, paths) if paths else {}
        for problem in problems.values():
            self._problems.set("read", problem)
        return set(problems)

    async def is_closed(self, path: RelPath) -> bool:
        """Whether surely nobody has the file open for writing."""
        try:
            return await asyncio.to_thread(self._disk.is_being_written, path) is False
        except (FileChangedError, OSError):
            return False

    def _sync(self, paths: Sequence[RelPath]) -> dict[RelPath, Problem]:
        """Runs in a worker thread: all at once, and if that fails one by one."""
        try:
            self._disk.make_durable(paths)
        except OSError as error:
            if len(paths) == 1:
                return {paths[0]: self._disk.kind_of_problem(error, paths[0])}
            return {each: why for path in paths for each, why in self._sync([path]).items()}
        return {}

    def _read_each(
        self, files: Sequence[tuple[RelPath, Manifest]]
    ) -> list[tuple[RelPath, Hashed | Problem | None]]:
        """Runs in a worker thread; None for files that changed meanwhile."""
        results: list[tuple[RelPath, Hashed | Problem | None]] = []
        with self._disk.at_once():
            for path, known in files:
                try:
                    results.append((path, self._disk.hash_file(path, known=known)))
                except (FileChangedError, FileNotFoundError, NotADirectoryError):
                    results.append((path, None))
                except OSError as error:
                    results.append((path, self._disk.kind_of_problem(error, path)))
        return results
