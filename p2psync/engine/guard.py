"""Lets a folder work only while its root and its disk do."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from p2psync.engine.problems import Problems, halted
from p2psync.errors import P2psyncError
from p2psync.ports import Disk, Problem, RootUnavailableError

_RETRY_S = 2.0

_log = logging.getLogger(__name__)


class Guard:
    def __init__(
        self,
        folder: str,
        disk: Disk,
        problems: Problems,
        *,
        halting: Callable[[], None],
        rescan: Callable[[], None],
    ) -> None:
        """`halting` is called when the root is found to be gone; `rescan` after any trouble."""
        self._folder = folder
        self._disk = disk
        self._problems = problems
        self._halting = halting
        self._rescan = rescan
        self.halted: Problem | None = None
        """Set while the root is gone."""

    async def run(self, work: Callable[[], Awaitable[object]], source: str) -> bool:
        """Do `work` unless the root is gone; whether it was done. Trouble with the disk is told as
        of `source`, so that other work, which goes well, does not hide it."""
        try:
            await asyncio.to_thread(self._disk.check_root)
            await work()
        except RootUnavailableError as error:
            if self.halted is None:
                _log.warning("halted folder=%s reason=%s", self._folder, error)
            self.halted = halted(self._folder, str(error))
            self._halting()
        except (P2psyncError, OSError) as error:
            self.tell(error, source)
            _log.warning("disk trouble folder=%s reason=%s", self._folder, error)
        else:
            self._problems.clear(source, "")
            if self.halted is not None:
                _log.info("resumed folder=%s", self._folder)
                self.halted = None
            return True
        await asyncio.sleep(_RETRY_S)
        self._rescan()
        return False

    def tell(self, error: P2psyncError | OSError, source: str) -> None:
        """Show what is wrong with the disk that holds the folder, or the index."""
        if isinstance(error, OSError):
            problem = self._disk.kind_of_problem(error, "")
        else:
            problem = Problem("", str(error), "It is tried again by itself.")
        self._problems.set(source, problem)
