"""Files being assembled in `.p2psync/tmp`, out of sight until they are whole and committed."""

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import blake3

from p2psync import failpoints
from p2psync.core.entry import Manifest
from p2psync.core.manifest import chunk_sizes
from p2psync.core.relpath import INTERNAL, RelPath
from p2psync.files.hashing import opened
from p2psync.files.modes import mode_of_new, set_mode
from p2psync.files.root import STAGING
from p2psync.files.syscalls import System
from p2psync.files.tree import Tree
from p2psync.files.writing import discard, write_all
from p2psync.ports import FileChangedError, Place, StagedPlace, Whole

Pieces = Sequence[tuple[int, bytes]]

STAGING_AREA = RelPath(f"{INTERNAL}/{STAGING}")

_NAME = re.compile(r"[0-9a-z-]{1,80}")

_RESERVED_FROM = 1024 * 1024
"""From this size (bytes) on, room is reserved before the first piece is written."""
_COPY_BYTES = 1024 * 1024

_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}
_CANNOT_SHARE = {
    errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM,
    errno.ETXTBSY, errno.EIO,
}  # fmt: skip


def staging_area(tree: Tree) -> int:
    """A handle that is good to the end."""
    return tree.keep(STAGING_AREA)


def stage(tree: Tree, files: Iterable[tuple[str, int, Pieces]]) -> None:
    area = staging_area(tree)
    for name, size, pieces in files:
        with _opened(tree.system, area, name, size) as file:
            for offset, data in pieces:
                if offset < 0 or offset + len(data) > size:
                    raise ValueError("a piece lies outside of its file")
                write_all(tree.system, file, data, offset)
                failpoints.reach("staging.piece-written")
                if size >= _RESERVED_FROM:
                    # So that the sync at the end, when the last piece has come, finds little left.
                    with suppress(OSError):
                        tree.system.start_writing(file, len(data), offset)


def stage_whole(tree: Tree, files: Iterable[Whole]) -> None:
    area = staging_area(tree)
    system = tree.system
    for name, data, entry in files:
        with _opened(system, area, name, len(data), written_whole=True) as file:
            write_all(system, file, data, 0)
            failpoints.reach("staging.piece-written")
            set_mode(system, file, mode_of_new(executable=entry.executable))
            system.set_mtime(file, entry.mtime_ns)


_LEFT_FREE = 1024**3
"""Bytes that reserved room leaves on a disk, or a hundredth of the disk if that is less."""


@contextmanager
def _opened(
    system: System, area: int, name: str, size: int, *, written_whole: bool = False
) -> Iterator[int]:
    """The staging file with that name and size, empty if it was not there before; one that is
    `written_whole` at once grows to its size then. One that is made in vain (the disk is full) is
    not left behind."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no staging name")
    file = system.open_staging(area, name, create=True)
    try:
        found = system.fstat(file)
        if found.st_nlink > 1:
            # A crash came between placing it by a link and unlinking it here: it is a user's now.
            system.unlink(area, name)
            system.close(file)
            file = system.open_staging(area, name, create=True)
            found = system.fstat(file)
        try:
            if found.st_size != size and (found.st_size or not written_whole):
                _give_size(system, file, found.st_size, size)
        except OSError:
            discard(system, area, name)
            raise
        failpoints.reach("staging.opened")
        yield file
    finally:
        system.close(file)


def _give_size(system: System, file: int, old: int, new: int) -> None:
    if old:
        system.truncate(file, 0)
    if new >= _RESERVED_FROM:
        try:
            _check_room(system, file, new)
            system.allocate(file, new)
            return
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
    system.truncate(file, new)


def _check_room(system: System, file: int, size: int) -> None:
    """Some file systems reserve what is left before they say that it is not enough, and until then
    nobody else can write. What a peer says of a size must not do that to a disk."""
    free, total = system.room(file)
    if total and size > free - min(_LEFT_FREE, total // 100):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stage_copy(tree: Tree, name: str, size: int, offset: int, source: Place) -> bool:
    try:
        with opened(tree, source.path) as (file, found):
            if found.st_size < source.offset + source.size:
                return False
            with _opened(tree.system, staging_area(tree), name, size) as staged:
                return _copy(tree.system, file, staged, source, offset)
    except FileChangedError:
        return False


def _copy(system: System, source: int, target: int, place: Place, offset: int) -> bool:
    done = 0
    while done < place.size:
        offsets = (place.offset + done, offset + done)
        try:
            count = system.copy_range(source, target, place.size - done, offsets)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            count = 0
        if count == 0:
            # Also where the file system pretends that the file has ended, as some do.
            try:
                data = system.read(source, min(_COPY_BYTES, place.size - done), offsets[0])
            except OSError:
                # A bad disk: what it does not give is had from elsewhere.
                return False
            if not data:
                return False
            write_all(system, target, data, offsets[1])
            count = len(data)
        done += count
        failpoints.reach("staging.piece-copied")
    return True


def staged_chunks(tree: Tree, name: str, manifest: Manifest) -> list[bool]:
    size = sum(chunk.size for chunk in manifest)
    system = tree.system
    try:
        file = system.open_staging(staging_area(tree), name, create=False)
    except FileNotFoundError:
        return [False] * len(manifest)
    try:
        found = system.fstat(file)
        if found.st_size != size:
            return [False] * len(manifest)
        return list(_right_chunks(system, file, manifest, size))
    finally:
        system.close(file)


def _right_chunks(system: System, file: int, manifest: Manifest, size: int) -> Iterator[bool]:
    # Where nothing was written reads as zeros, and a run of zeros is cut into the largest chunks.
    largest = chunk_sizes(size).maximum
    zeros = blake3.blake3(bytes(largest)).digest()
    buffer = memoryview(bytearray(largest))
    at = 0
    data_from = 0
    for digest, length in manifest:
        if data_from < at + 1 and at < size:
            data_from = _next_data(system, file, at, size)
        if data_from >= at + length:
            yield length == largest and digest == zeros
        else:
            view = buffer[:length] if length <= largest else memoryview(bytearray(length))
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
        buffer = bytearray(place.size)
        if not _fill(system, file, memoryview(buffer), place.offset):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return bytes(buffer)
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
