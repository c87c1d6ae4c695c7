"""Brings the contents of files into staging: local bytes first, then whatever peers hold.

Everything staged here has been verified against its content id, so a commit never needs to ask.
"""

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, ParamSpec, TypeVar

import blake3

from p2psync.core.entry import SINGLE_CHUNK_MAX, Entry, Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.manifest import content_id_of_manifest, offsets_of
from p2psync.core.relpath import RelPath
from p2psync.engine.fetch import Chunks, Need, fetch_chunks
from p2psync.engine.session import Session, SessionClosedError
from p2psync.engine.swarm import Swarm
from p2psync.engine.tasks import together, whole
from p2psync.errors import P2psyncError
from p2psync.ports import Disk, FileChangedError, FolderIndex, Place, Whole

P = ParamSpec("P")
T = TypeVar("T")

Sessions = Callable[[], dict[DeviceID, Session]]

_SMALL_PREFIX = "s-"

_COPY_BYTES = 32 * 1024 * 1024
"""The most that one copy from this disk is of."""
_COPIERS = 2
"""Copies under way at a time: one reads and verifies while another is written."""


class FileWanted(NamedTuple):
    path: RelPath
    entry: Entry
    sources: frozenset[DeviceID]


class Staged(NamedTuple):
    name: str
    manifest: Manifest | None


def is_small(entry: Entry) -> bool:
    """Whether the file is one chunk, named by its digest."""
    return entry.size <= SINGLE_CHUNK_MAX


class Contents:
    def __init__(
        self, folder: str, index: FolderIndex, disk: Disk, swarm: Swarm, sessions: Sessions
    ) -> None:
        self._folder = folder
        self._index = index
        self._disk = disk
        self._swarm = swarm
        self._all_sessions = sessions
        self._numbers = itertools.count(1)
        self._cleared = False

    def _sessions(self) -> dict[DeviceID, Session]:
        return {peer: session for peer, session in self._all_sessions().items() if not session.owes}

    def is_connected(self, sources: Iterable[DeviceID]) -> bool:
        """Whether any of them may serve contents, now or when it answers again."""
        return not self._all_sessions().keys().isdisjoint(sources)

    def available(self) -> frozenset[tuple[Session, int]]:
        """The sessions of peers that contents can be asked of now. Another set shows that one has
        come, or answers again."""
        return frozenset((session, session.lapses) for session in self._sessions().values())

    async def stage_small(self, files: Sequence[FileWanted]) -> dict[RelPath, Staged | OSError]:
        """Stage files of one chunk: those whose bytes could be had, or why they are not staged."""
        await self._clear_leftovers()
        by_content: dict[bytes, list[FileWanted]] = defaultdict(list)
        for file in files:
            by_content[file.entry.content].append(file)
        outcomes: dict[RelPath, Staged | OSError] = {}

        def keep(chunks: Chunks) -> dict[RelPath, Staged | OSError]:
            batch = [
                (path, Whole(f"{_SMALL_PREFIX}{next(self._numbers)}", data, entry))
                for digest, data in chunks
                for path, entry, _ in by_content[digest]
                if len(data) == entry.size
            ]
            return self._stage(batch) if batch else {}

        def copy(wanted: Sequence[tuple[Digest, Sequence[Place]]]) -> None:
            if found := self._read_verified(wanted):
                outcomes.update(keep(found))

        places = await self._index.find_contents(list(by_content))
        local = [
            (Digest(content), [Place(path, 0, by_content[content][0].entry.size) for path in paths])
            for content, paths in places.items()
        ]
        for at in range(0, len(local), 64):
            await _in_thread(copy, local[at : at + 64])
        needs = [
            Need(
                Digest(content),
                wanting[0].entry.size,
                _sources(wanting),
                exact=len({file.entry.size for file in wanting}) == 1,
            )
            for content, wanting in by_content.items()
            if not any(file.path in outcomes for file in wanting)
        ]
        await fetch_chunks(self._folder, needs, self._sessions, keep, outcomes.update)
        return outcomes

    def _stage(self, batch: Sequence[tuple[RelPath, Whole]]) -> dict[RelPath, Staged | OSError]:
        """Runs in a worker thread. Where not all can be staged, as many as can."""
        try:
            self._disk.stage_whole([file for _, file in batch])
        except OSError as error:
            if len(batch) == 1:
                return {batch[0][0]: error}
            half = len(batch) // 2
            return self._stage(batch[:half]) | self._stage(batch[half:])
        return {path: Staged(file.name, None) for path, file in batch}

    def _read_verified(
        self, wanted: Sequence[tuple[Digest, Sequence[Place]]]
    ) -> list[tuple[Digest, bytes]]:
        """Runs in a worker thread. What is really there, of any of the places of each."""
        found: list[tuple[Digest, bytes]] = []
        with self._disk.at_once():
            for digest, places in wanted:
                for place in places:
                    try:
                        data = self._disk.read(place)
                    except (OSError, FileChangedError):
                        continue
                    if blake3.blake3(data).digest() == digest:
                        found.append((digest, data))
                        break
        return found

    def committed(self) -> None:
        """All that was staged to its end has been placed."""
        self._swarm.committed()

    def abandon(self) -> None:
        """What is staged will not be committed: a pull ended halfway."""
        self._cleared = False

    async def drop(self, staged: Iterable[Staged]) -> None:
        """Small files that were not placed; the chunks of large ones are kept for the next try."""
        names = [each.name for each in staged if each.name.startswith(_SMALL_PREFIX)]
        if names:
            await asyncio.to_thread(self._disk.unstage, names)

    async def _clear_leftovers(self) -> None:
        """Names of small files are given anew by every process, so nothing may have them yet."""
        if not self._cleared:
            names = await asyncio.to_thread(self._disk.staged_names)
            left = [name for name in names if name.startswith(_SMALL_PREFIX)]
            await asyncio.to_thread(self._disk.unstage, left)
            self._cleared = True

    async def stage_large(self, file: FileWanted) -> Staged | None:
        """Stage a file of several chunks, going on where an earlier attempt stopped; None when
        not all of it could be had now (what was had stays staged)."""
        manifest = await self._manifest(file)
        if manifest is None:
            return None
        name = f"c-{file.entry.content.hex()}"
        done = await _in_thread(self._disk.prepare, name, manifest)
        if not all(done):
            await self._copy_local(name, manifest, done)
        offsets: dict[Digest, list[int]] = defaultdict(list)
        sizes: dict[Digest, int] = {}
        for chunk, at, have in zip(manifest, offsets_of(manifest), done, strict=True):
            if not have:
                offsets[chunk.digest].append(at)
                sizes[chunk.digest] = chunk.size

        share = self._swarm.begin(file.entry.content, manifest, name, done, file.sources)

        def keep(chunks: Chunks) -> list[Digest]:
            pieces = [(at, data) for digest, data in chunks for at in offsets[digest]]
            self._disk.stage_pieces(name, pieces)
            return [digest for digest, _ in chunks]

        needs = [
            Need(digest, sizes[digest], file.sources, number=share.number_of(digest))
            for digest in offsets
        ]
        others = share if share.is_wanted_elsewhere else None
        try:
            left = await fetch_chunks(self._folder, needs, self._sessions, keep, share.got, others)
        finally:
            share.end()
        return None if left else Staged(name, manifest)

    async def _copy_local(self, name: str, manifest: Manifest, done: list[bool]) -> None:
        """Copy chunks that lie anywhere in this folder, neighbours in one go, and note in `done`
        which ones were right."""
        missing = [chunk.digest for chunk, have in zip(manifest, done, strict=True) if not have]
        runs = _runs(manifest, done, await self._index.find_chunks(missing))

        async def work() -> None:
            while runs:
                run = runs.popleft()
                chunks = manifest[run.first : run.after]
                done[run.first : run.after] = await _in_thread(
                    self._disk.stage_copy, name, run.at, chunks, run.place
                )

        async with together() as tasks:
            for _ in range(min(_COPIERS, len(runs))):
                tasks.create_task(work(), name="copy")

    async def _manifest(self, file: FileWanted) -> Manifest | None:
        content = file.entry.content
        known = await self._index.manifest(content)
        if known is not None:
            return known if _describes(known, file.entry) else None
        for peer, session in self._sessions().items():
            if peer not in file.sources:
                continue
            try:
                manifest = await session.request_manifest(self._folder, content)
            except (SessionClosedError, TimeoutError):
                continue
            except P2psyncError:
                session.strike()
                continue
            if manifest is None:
                continue
            if not _describes(manifest, file.entry):
                session.strike()
                continue
            await self._index.save_manifest(content, manifest)
            return manifest
        return None


def _describes(manifest: Manifest, entry: Entry) -> bool:
    return (
        content_id_of_manifest(manifest) == entry.content
        and sum(chunk.size for chunk in manifest) == entry.size
        # One digest is of one size.
        and len(set(manifest)) == len({chunk.digest for chunk in manifest})
    )


def _sources(files: Iterable[FileWanted]) -> frozenset[DeviceID]:
    return frozenset().union(*(file.sources for file in files))


class _Run(NamedTuple):
    """Chunks of a file that lie one after another in another one."""

    first: int
    after: int
    """Number of the first chunk and of the one behind the last."""
    at: int
    """Offset in the file."""
    place: Place

    def goes_on_at(self, place: Place) -> bool:
        last = self.place
        return place.path == last.path and place.offset == last.offset + last.size


def _runs(
    manifest: Manifest, done: Sequence[bool], places: Mapping[Digest, Sequence[Place]]
) -> deque[_Run]:
    """What is to be copied from where: neighbours together, as far as one copy goes."""
    runs: deque[_Run] = deque()
    offsets = offsets_of(manifest)
    for number, (chunk, have) in enumerate(zip(manifest, done, strict=True)):
        found = [] if have else places.get(chunk.digest, [])
        if not found:
            continue
        last = runs[-1] if runs and runs[-1].after == number else None
        next_ones = (place for place in found if last is not None and last.goes_on_at(place))
        place = next(next_ones, None)
        if last is None or place is None or last.place.size + place.size > _COPY_BYTES:
            runs.append(_Run(number, number + 1, offsets[number], place or found[0]))
        else:
            longer = last.place._replace(size=last.place.size + place.size)
            runs[-1] = last._replace(after=number + 1, place=longer)
    return runs


async def _in_thread(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """For what writes to a staging file: it must be over when a cancelled pull is, or it could
    still write when the file has been placed and is a user's."""
    return await whole(asyncio.to_thread(work, *args, **options))
