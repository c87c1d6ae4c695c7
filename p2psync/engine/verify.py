"""Reads every held file now and then, slowly, to find what the disk has changed by itself.

Everything is read in path order, past the system's memory of it, and no faster than told. How far
it came is kept, so that a device that is switched off every evening gets through in the end.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from p2psync.core.entry import Chunk
from p2psync.core.ids import Digest
from p2psync.core.relpath import RelPath
from p2psync.engine.content import is_small
from p2psync.engine.integrity import Integrity, Verdict, is_right
from p2psync.errors import P2psyncError
from p2psync.ports import Clock, Disk, FolderIndex, Held, Place, Scrub

_GROUP_FILES = 200
_LEAST_BYTES = 64 * 1024
"""What a file counts for at least: to find a small one takes the disk as long as to read these."""
_SHORTEST_SLEEP_S = 0.02
_LONGEST_SLEEP_S = 1.0
"""So soon a new rate is heeded."""
_TROUBLE_S = 30.0
_SAVE_EVERY_S = 30.0

_log = logging.getLogger(__name__)


class Schedule(NamedTuple):
    """When everything is read, and at which rate unless asked for another."""

    interval_s: float = 0.0
    """0: only when asked."""
    rate: float = math.inf
    """Bytes a second."""


class Verifier:
    def __init__(
        self,
        folder: str,
        index: FolderIndex,
        disk: Disk,
        clock: Clock,
        integrity: Integrity,
        schedule: Schedule,
        *,
        gate: asyncio.Lock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`gate` is held while reading: all who share it together keep to the rate."""
        self._folder = folder
        self._index = index
        self._disk = disk
        self._clock = clock
        self._integrity = integrity
        self._schedule = schedule
        self._gate = gate
        self._sleep = sleep
        self._rate = schedule.rate
        self._free_at = 0.0
        """When the rate allows to read on (monotonic clock)."""
        self._saved_at = 0.0
        self._wake = asyncio.Event()
        self._scrub: Scrub | None = None
        self._asked = False

    @property
    def is_running(self) -> bool:
        """Or waiting for its turn."""
        scrub = self._scrub
        return self._asked or (scrub is not None and scrub.begun_ns > 0 == scrub.finished_ns)

    async def progress(self) -> Scrub:
        return self._scrub if self._scrub is not None else await self._index.scrub()

    def start(self, rate: float | None) -> None:
        """Read everything from the beginning, or go on with what is under way; `rate`: in bytes a
        second, from now on to the end of it."""
        self._rate = rate or self._schedule.rate
        self._free_at = 0.0
        self._asked = not self.is_running or self._asked
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self._scrub = await self._index.scrub()
                while True:
                    await self._wait()
                    async with self._gate:
                        await self.read_all()
            except (P2psyncError, OSError) as error:
                # The scan tells people; the reading goes on where it was.
                _log.debug("verifying put off folder=%s reason=%s", self._folder, error)
                await asyncio.sleep(_TROUBLE_S)

    async def _wait(self) -> None:
        """Until there is something to be read."""
        scrub = await self.progress()
        if not scrub.begun_ns and not scrub.finished_ns:
            # Everything is read when it is first seen.
            await self._save(Scrub(finished_ns=self._clock.now_ns()))
        while not self.is_running:
            self._wake.clear()
            left = self._left(await self.progress())
            if left <= 0:
                self._asked = True
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 3600.0)):
                    await self._wake.wait()

    def _left(self, scrub: Scrub) -> float:
        """Seconds until the schedule asks for it."""
        if not self._schedule.interval_s:
            return math.inf
        return self._schedule.interval_s - (self._clock.now_ns() - scrub.finished_ns) / 1e9

    # --- reading ---------------------------------------------------------------------------

    async def read_all(self) -> Scrub:
        """Go on with what is not finished, or begin; the end of it. Raises RootUnavailableError and
        other errors of disk and index, to go on later."""
        scrub = await self.progress()
        if not scrub.begun_ns or scrub.finished_ns:
            scrub = Scrub(begun_ns=max(1, self._clock.now_ns()))
            await self._save(scrub)
            _log.info("verifying begun folder=%s", self._folder)
        self._asked = False
        while files := await self._index.files_after(scrub.position, _GROUP_FILES):
            for path, held in files:
                verdict = await self._verify(path, held)
                scrub = scrub._replace(
                    position=path,
                    files=scrub.files + 1,
                    bytes=scrub.bytes + held.entry.size,
                    damaged=scrub.damaged + (verdict is Verdict.DAMAGED),
                )
                self._scrub = scrub
                if self._clock.monotonic() - self._saved_at >= _SAVE_EVERY_S:
                    await self._save(scrub)
        scrub = scrub._replace(finished_ns=max(1, self._clock.now_ns()), position="")
        await self._save(scrub)
        self._rate = self._schedule.rate
        _log.info("verified folder=%s damaged=%d", self._folder, scrub.damaged)
        return scrub

    async def _save(self, scrub: Scrub) -> None:
        self._scrub = scrub
        await self._index.save_scrub(scrub)
        self._saved_at = self._clock.monotonic()

    async def _verify(self, path: RelPath, held: Held) -> Verdict:
        await self._keep_to_rate(max(0, _LEAST_BYTES - held.entry.size))
        if held.damage is not None:
            return await self._judge(path, held)
        entry = held.entry
        chunks = (
            (Chunk(Digest(entry.content), entry.size),)
            if is_small(entry)
            else await self._index.manifest(entry.content)
        )
        at = 0
        for digest, size in chunks or ():
            await self._keep_to_rate(size)
            place = Place(path, at, size)
            if not await asyncio.to_thread(is_right, self._disk, place, digest, fresh=True):
                return await self._judge(path, held)
            at += size
        return Verdict.SOUND

    async def _judge(self, path: RelPath, held: Held) -> Verdict:
        verdict = await self._integrity.judge(path, again=True)
        if verdict in (Verdict.SOUND, Verdict.DAMAGED):
            # All of it was read.
            self._charge(held.entry.size)
        elif verdict is Verdict.BUSY:
            self._integrity.suspect([path])
        return verdict

    async def _keep_to_rate(self, size: int) -> None:
        """Wait until as many bytes may be read."""
        while (left := self._free_at - self._clock.monotonic()) >= _SHORTEST_SLEEP_S:
            await self._sleep(min(left, _LONGEST_SLEEP_S))
        self._charge(size)

    def _charge(self, size: int) -> None:
        self._free_at = max(self._free_at, self._clock.monotonic()) + size / self._rate
