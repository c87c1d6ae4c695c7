"""Judges files whose bytes are not what the index says: edited, or damaged?

A file whose fingerprint is the held one was not written to, as far as anybody can tell. If its
bytes are others all the same, they are damaged (or an edit that no stat can show): they never
become a version, and are marked in the index, served to nobody and replaced (`mend`). If the
fingerprint is another, it is an edit like any other and the scan's business.
"""

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Iterable
from enum import Enum

import blake3

from p2psync.core.entry import Fingerprint, Kind
from p2psync.core.ids import Digest
from p2psync.core.relpath import RelPath
from p2psync.engine.content import is_small
from p2psync.errors import P2psyncError
from p2psync.ports import (
    Clock,
    Damage,
    Disk,
    FileChangedError,
    FolderIndex,
    Held,
    Place,
    RootUnavailableError,
    Row,
)

_MOST_SUSPECTS = 10_000
"""Any that are passed over are found again."""
_BUSY_S = 60.0
"""After this time a file that was being written is looked at again."""
_GONE = (FileChangedError, FileNotFoundError, NotADirectoryError)
_BAD_BYTES = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
"""What the system says of bytes that the disk, or the file system's own checksum, gives up on."""

_log = logging.getLogger(__name__)


class Verdict(Enum):
    SOUND = "sound"
    EDITED = "edited"
    """Or gone: the scan was told."""
    BUSY = "busy"
    """A program has it open for writing; it is judged again later."""
    UNREADABLE = "unreadable"
    """For a reason that says nothing of its bytes."""
    DAMAGED = "damaged"


def is_right(disk: Disk, place: Place, digest: Digest, *, fresh: bool = False) -> bool:
    """Whether those bytes can be read and are the chunk; `fresh`: from the disk itself. Blocks."""
    try:
        return blake3.blake3(disk.read(place, fresh=fresh)).digest() == digest
    except (FileChangedError, OSError):
        return False


class Integrity:
    def __init__(
        self,
        folder: str,
        index: FolderIndex,
        disk: Disk,
        clock: Clock,
        turn: asyncio.Lock,
        *,
        edited: Callable[[Iterable[RelPath]], None],
        damaged: Callable[[], None],
        recorded: Callable[[], None],
    ) -> None:
        """`edited` is told of paths that the scan has to look at; `damaged` is called when a file
        was newly found so, or well again; `recorded` after a row was."""
        self._folder = folder
        self._index = index
        self._disk = disk
        self._clock = clock
        self._turn = turn
        self._edited = edited
        self._damaged = damaged
        self._recorded = recorded
        self._suspects: dict[RelPath, float] = {}
        """When each is to be judged (monotonic clock)."""
        self._wake = asyncio.Event()

    def suspect(self, paths: Iterable[RelPath]) -> None:
        """Bytes at these paths were not what the index says."""
        for path in paths:
            if len(self._suspects) < _MOST_SUSPECTS:
                self._suspects.setdefault(path, self._clock.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Judge what is suspected, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BUSY_S if self._suspects else None):
                    await self._wake.wait()
            self._wake.clear()
            await self.judge_suspects()

    async def judge_suspects(self) -> None:
        """All that are due now."""
        now = self._clock.monotonic()
        for path in [path for path, due in self._suspects.items() if due <= now]:
            del self._suspects[path]
            try:
                verdict = await self.judge(path)
            except (P2psyncError, OSError) as error:
                # Of the root, the disk or the index, which the scan tells people.
                _log.debug("judging put off folder=%s reason=%s", self._folder, error)
                verdict = Verdict.BUSY
            if verdict is Verdict.BUSY:
                self._suspects[path] = now + _BUSY_S

    async def judge(self, path: RelPath, *, again: bool = False) -> Verdict:
        """Read the file and mark it if it is damaged; `again`: also if it was, since a disk may be
        well again. Raises P2psyncError (of the root or the index) and OSError."""
        while (verdict := await self._judge(path, again=again)) is None:
            pass
        return verdict

    async def _judge(self, path: RelPath, *, again: bool) -> Verdict | None:
        """None where the index has something else of the path meanwhile."""
        # Between a commit and its row the one says nothing of the other.
        async with self._turn:
            held = (await self._index.held([path])).get(path)
            untouched = held is not None and await self._is_untouched(path, held)
        if held is None or held.entry.kind != Kind.FILE or not untouched:
            self._edited([path])
            return Verdict.EDITED
        if held.damage is not None and not again:
            return Verdict.DAMAGED
        try:
            if await asyncio.to_thread(self._disk.is_being_written, path):
                return Verdict.BUSY
            hashed = await asyncio.to_thread(self._disk.hash_file, path, fresh=True)
            content, mark = bytes(hashed.content), hashed.fingerprint
        except RootUnavailableError:
            raise
        except _GONE:
            self._edited([path])
            return Verdict.EDITED
        except OSError as error:
            if error.errno not in _BAD_BYTES:
                return Verdict.UNREADABLE
            content, mark = b"", None
        if content != held.entry.content and await self._is_cut_otherwise(path, held):
            content = held.entry.content
        if content == held.entry.content and held.damage is None:
            return Verdict.SOUND
        return await self._record(path, held, content, mark)

    async def _is_cut_otherwise(self, path: RelPath, held: Held) -> bool:
        """Whether all bytes are right, but whoever told of the file cut it as we do not: its
        content id is not that of our chunks."""
        if is_small(held.entry):
            return False
        manifest = await self._index.manifest(held.entry.content)
        at = 0
        for digest, size in manifest or ():
            if not await asyncio.to_thread(is_right, self._disk, Place(path, at, size), digest):
                return False
            at += size
        return manifest is not None

    async def _record(
        self, path: RelPath, held: Held, content: bytes, mark: Fingerprint | None
    ) -> Verdict | None:
        """`mark`: of the object that was read, where it could be. None as above."""
        known = held.fingerprint
        assert known is not None
        async with self._turn:
            now = (await self._index.held([path])).get(path)
            if now != held:
                return None
            untouched = mark is None or known.unchanged(mark)
            if not untouched or not await self._is_untouched(path, held):
                self._edited([path])
                return Verdict.EDITED
            if content == held.entry.content:
                # Under a new number: peers may be told of it again.
                await self._index.record([Row(path, held.entry, known)])
                self._recorded()
                self._damaged()
                return Verdict.SOUND
            if held.damage is not None:
                return Verdict.DAMAGED
            damage = Damage(path, known, content)
            await self._index.mark_damaged([damage], now_ns=self._clock.now_ns())
        _log.warning("file damaged folder=%s path=%r", self._folder, path)
        self._damaged()
        return Verdict.DAMAGED

    async def _is_untouched(self, path: RelPath, held: Held) -> bool:
        seen = (await asyncio.to_thread(self._disk.look, [path])).get(path)
        mark = held.fingerprint
        return seen is not None and mark is not None and mark.unchanged(seen.fingerprint)
