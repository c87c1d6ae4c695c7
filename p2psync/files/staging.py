"""Files being assembled in `.p2psync/tmp`, out of sight until they are whole and committed."""

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import blake3

from p2psync import failpoints
from p2psync.core.entry import Chunk, Manifest
from p2psync.core.manifest import holes, offsets_of
from p2psync.core.relpath import INTERNAL, RelPath
from p2psync.files.hashing import opened, read_up_to
from p2psync.files.modes import mode_of_new
from p2psync.files.root import STAGING
from p2psync.files.syscalls import System
from p2psync.files.tree import Tree
from p2psync.files.writing import discard, write_all
from p2psync.ports import FileChangedError, Place, StagedPlace, Whole

Pieces = Sequence[tuple[int, bytes | memoryview]]

STAGING_AREA = RelPath(f"{INTERNAL}/{STAGING}")

_NAME = re.compile(r"[0-9a-z-]{1,80}")

_RESERVED_FROM = 1024 * 1024
"""From this size (bytes) on, room is reserved before the first piece is written."""
_WRITTEN_AT_ONCE = 8 * 1024 * 1024
"""So many bytes of a copy are given to the disk at a time."""

_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}
_CANNOT_SHARE = {
    errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM,
    errno.ETXTBSY, errno.EIO, errno.ENOTTY,
}  # fmt: skip


def staging_area(tree: Tree) -> int:
    """A handle that is good to the end."""
    return tree.keep(STAGING_AREA)


def prepare(tree: Tree, name: str, manifest: Manifest) -> list[bool]:
    size = sum(chunk.size for chunk in manifest)
    zeros = holes(manifest)
    dense = _dense(manifest, zeros)
    with _opened(tree.system, staging_area(tree), name, size, dense) as (file, is_new):
        return zeros if is_new else list(_right_chunks(tree.system, file, manifest, zeros))


def _dense(manifest: Manifest, zeros: Sequence[bool]) -> list[tuple[int, int]]:
    """Offset and size of what lies between holes."""
    found: list[tuple[int, int]] = []
    at = 0
    for chunk, is_hole in zip(manifest, zeros, strict=True):
        if not is_hole:
            begun, count = found.pop() if found and sum(found[-1]) == at else (at, 0)
            found.append((begun, count + chunk.size))
        at += chunk.size
    return found


def stage_pieces(tree: Tree, name: str, pieces: Pieces) -> None:
    # Were it made anew here, what was staged before would be missing in it.
    with _prepared(tree, name) as file:
        for offset, data in pieces:
            write_all(tree.system, file, data, offset)
            failpoints.reach("staging.piece-written")
            _start_writing(tree.system, file, len(data), offset)


@contextmanager
def _prepared(tree: Tree, name: str) -> Iterator[int]:
    file = tree.system.open_staging(staging_area(tree), name, create=False)
    try:
        yield file
    finally:
        tree.system.close(file)


def _start_writing(system: System, file: int, size: int, offset: int) -> None:
    """So that the sync at the end, when the last piece has come, finds little left."""
    with suppress(OSError):
        system.start_writing(file, size, offset)


def stage_whole(tree: Tree, files: Iterable[Whole]) -> None:
    area = staging_area(tree)
    system = tree.system
    for name, data, entry in files:
        file = _new(system, area, name, mode_of_new(executable=entry.executable))
        try:
            failpoints.reach("staging.opened")
            write_all(system, file, data, 0)
            failpoints.reach("staging.piece-written")
            system.set_mtime(file, entry.mtime_ns)
        except OSError:
            # The next try takes another name, and a full disk would fill with these.
            discard(system, area, name)
            raise
        finally:
            system.close(file)


def _new(system: System, area: int, name: str, mode: int) -> int:
    """What a crash left under that name goes: it is incomplete, or a user's file that was placed by
    a link and has its own name."""
    _check(name)
    try:
        return system.create_staging(area, name, mode)
    except FileExistsError:
        system.unlink(area, name)
        return system.create_staging(area, name, mode)


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no staging name")


_LEFT_FREE = 1024**3
"""Bytes that reserved room leaves on a disk, or a hundredth of the disk if that is less."""


def _ours(system: System, area: int, name: str) -> tuple[int, os.stat_result]:
    file, found = _made(system, area, name)
    try:
        if found.st_nlink == 1:
            return file, found
        # A crash came between placing it by a link and unlinking it here: it is a user's now.
        system.unlink(area, name)
    except BaseException:
        system.close(file)
        raise
    system.close(file)
    return _made(system, area, name)


def _made(system: System, area: int, name: str) -> tuple[int, os.stat_result]:
    file = system.open_staging(area, name, create=True)
    try:
        return file, system.fstat(file)
    except BaseException:
        system.close(file)
        raise


@contextmanager
def _opened(
    system: System,
    area: int,
    name: str,
    size: int,
    dense: Sequence[tuple[int, int]],
) -> Iterator[tuple[int, bool]]:
    """The staging file with that name and size, and whether it was not there before: then it is
    empty, with room for what is `dense`. One that is made in vain (the disk is full) is not left
    behind."""
    _check(name)
    file, found = _ours(system, area, name)
    try:
        is_new = found.st_size != size
        try:
            if is_new:
                _give_size(system, file, found.st_size, size, dense)
        except OSError:
            discard(system, area, name)
            raise
        failpoints.reach("staging.opened")
        yield file, is_new
    finally:
        system.close(file)


def _give_size(
    system: System, file: int, old: int, new: int, dense: Sequence[tuple[int, int]]
) -> None:
    if old:
        system.truncate(file, 0)
    room = sum(count for _, count in dense)
    if room >= _RESERVED_FROM:
        try:
            _check_room(system, file, room)
            for offset, count in dense:
                system.allocate(file, count, offset)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
    # Last: a file of the right size is one that has its room.
    system.truncate(file, new)


def _check_room(system: System, file: int, size: int) -> None:
    """Some file systems reserve what is left before they say that it is not enough, and until then
    nobody else can write. What a peer says of a size must not do that to a disk."""
    free, total = system.room(file)
    if total and size > free - min(_LEFT_FREE, total // 100):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stage_copy(
    tree: Tree, name: str, offset: int, chunks: Sequence[Chunk], source: Place
) -> list[bool]:
    try:
        with (
            opened(tree, source.path) as (file, found),
            _prepared(tree, name) as staged,
        ):
            copying = _Copying(tree.system, file, staged, chunks)
            if found.st_size >= source.offset + source.size and copying.share(
                source, offset, found.st_blksize
            ):
                return copying.verify(offset)
            return copying.copy(source.offset, offset)
    except FileChangedError:
        return [False] * len(chunks)


class _Copying:
    """Chunks that lie one after another in one open file, on their way to another."""

    def __init__(self, system: System, source: int, target: int, chunks: Sequence[Chunk]) -> None:
        self._system = system
        self._source = source
        self._target = target
        self._chunks = chunks
        self._offsets = offsets_of(tuple(chunks))
        self._buffer = memoryview(bytearray(max(chunk.size for chunk in chunks)))

    def share(self, source: Place, offset: int, block: int) -> bool:
        """Have the file system keep the bytes once for both files, and copy only what lies in
        blocks that also hold others; whether it can."""
        head = -source.offset % block
        shared = (source.size - head) // block * block
        if (source.offset - offset) % block or shared <= 0:
            return False
        try:
            begins = (source.offset + head, offset + head)
            self._system.clone_range(self._source, self._target, shared, begins)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            return False
        failpoints.reach("staging.piece-copied")
        for at, count in ((0, head), (head + shared, source.size - head - shared)):
            view = self._buffer[:count]
            # What is not there to be read is found missing when it is verified.
            if _fill(self._system, self._source, view, source.offset + at):
                write_all(self._system, self._target, view, offset + at)
        return True

    def verify(self, offset: int) -> list[bool]:
        """Which of the chunks lie from `offset` on in the target."""
        return [
            self._read(self._target, chunk, offset + at)
            for chunk, at in zip(self._chunks, self._offsets, strict=True)
        ]

    def copy(self, source_offset: int, offset: int) -> list[bool]:
        """Copy those that are right: what was verified is what is written."""
        done: list[bool] = []
        unsent = upto = offset
        for chunk, at in zip(self._chunks, self._offsets, strict=True):
            done.append(self._read(self._source, chunk, source_offset + at))
            if done[-1]:
                write_all(self._system, self._target, self._buffer[: chunk.size], offset + at)
                failpoints.reach("staging.piece-copied")
            upto = offset + at + chunk.size
            if upto - unsent >= _WRITTEN_AT_ONCE:
                _start_writing(self._system, self._target, upto - unsent, unsent)
                unsent = upto
        _start_writing(self._system, self._target, upto - unsent, unsent)
        return done

    def _read(self, file: int, chunk: Chunk, offset: int) -> bool:
        """Whether the chunk lies there; it is in the buffer then."""
        view = self._buffer[: chunk.size]
        try:
            is_whole = _fill(self._system, file, view, offset)
        except OSError:
            # A bad disk: what it does not give is had from elsewhere.
            return False
        return is_whole and blake3.blake3(view).digest() == chunk.digest


def _right_chunks(
    system: System, file: int, manifest: Manifest, zeros: Sequence[bool]
) -> Iterator[bool]:
    # Where nothing was written reads as zeros.
    size = sum(chunk.size for chunk in manifest)
    buffer = memoryview(bytearray(max((chunk.size for chunk in manifest), default=0)))
    at = 0
    data_from = 0
    for (digest, length), is_zeros in zip(manifest, zeros, strict=True):
        if data_from < at + 1 and at < size:
            data_from = _next_data(system, file, at, size)
        if data_from >= at + length:
            yield is_zeros
        else:
            view = buffer[:length]
            yield _fill(system, file, view, at) and blake3.blake3(view).digest() == digest
        at += length


def _next_data(system: System, file: int, offset: int, size: int) -> int:
    try:
        return system.seek(file, offset, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset


def _fill(system: System, file: int, view: memoryview, offset: int) -> bool:
    while view:
        count = system.read_into(file, view, offset)
        if count == 0:
            return False
        view = view[count:]
        offset += count
    return True


def read_staged(tree: Tree, place: StagedPlace) -> bytes:
    system = tree.system
    file = system.open_staging(staging_area(tree), place.name, create=False)
    try:
        data = read_up_to(system, file, place.size, place.offset)
        if len(data) < place.size:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return data
    finally:
        system.close(file)


def unstage(tree: Tree, names: Iterable[str]) -> None:
    area = staging_area(tree)
    for name in names:
        try:
            tree.system.unlink(area, name)
        except FileNotFoundError:
            continue


def staged_names(tree: Tree) -> list[str]:
    """Sorted; what else lies in the staging area has names of another form."""
    entries = tree.system.scan(staging_area(tree))
    return sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name))
