"""Reads files and names their contents, or says that they changed meanwhile."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import blake3

from p2psync.core.entry import MAX_FILE_SIZE, SINGLE_CHUNK_MAX, Manifest
from p2psync.core.ids import Digest
from p2psync.core.manifest import content_id_of_manifest
from p2psync.core.relpath import RelPath
from p2psync.files.fingerprint import fingerprint_of
from p2psync.files.manifest import manifest_of
from p2psync.files.syscalls import System
from p2psync.files.tree import ABSENT, Tree
from p2psync.ports import FileChangedError, Hashed, Place

_NO_FILE = ABSENT | {errno.ENXIO}
"""Opening a socket fails with ENXIO."""


@contextmanager
def opened(tree: Tree, path: RelPath) -> Iterator[tuple[int, os.stat_result]]:
    """The regular file at `path`, open for reading. Raises FileChangedError if there is none."""
    try:
        directory, name = tree.place(path)
        file = tree.system.open_file(directory, name)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise changed(path) from None
        raise
    try:
        found = tree.system.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise changed(path)
        yield file, found
    finally:
        tree.system.close(file)


def hash_file(
    tree: Tree,
    path: RelPath,
    now_ns: Callable[[], int],
    *,
    known: Manifest = (),
    fresh: bool = False,
) -> Hashed:
    begun_ns = now_ns()
    with opened(tree, path) as (file, before):
        size = before.st_size
        if fresh:
            _forget(tree.system, file, size, 0)
        if size > MAX_FILE_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        manifest: Manifest | None = None
        if size <= SINGLE_CHUNK_MAX:
            content = Digest(blake3.blake3(_exactly(tree.system, file, size, 0, path)).digest())
        else:
            manifest = _manifest(tree.system, file, size, path, known)
            content = content_id_of_manifest(manifest)
        after = tree.system.fstat(file)
        try:
            named = tree.system.stat(*tree.place(path))
        except FileNotFoundError:
            raise changed(path) from None
        if _state(before) != _state(after) or _state(after) != _state(named):
            raise changed(path)
    fingerprint = fingerprint_of(after, now_ns=begun_ns)
    assert fingerprint is not None
    return Hashed(content, manifest, fingerprint)


def read(tree: Tree, place: Place, *, fresh: bool = False) -> bytes:
    with opened(tree, place.path) as (file, _):
        if fresh:
            _forget(tree.system, file, place.size, place.offset)
        data = _exactly(tree.system, file, place.size, place.offset, place.path)
        if fresh:
            # Whoever reads everything once must not push out what others use.
            _forget(tree.system, file, place.size, place.offset)
        return data


def is_being_written(tree: Tree, path: RelPath) -> bool | None:
    with opened(tree, path) as (file, _):
        return tree.system.is_open_for_writing(file)


def _forget(system: System, file: int, size: int, offset: int) -> None:
    # Where the system cannot, it is read as it is remembered.
    with suppress(OSError):
        system.forget_cached(file, size, offset)


def _manifest(system: System, file: int, size: int, path: RelPath, known: Manifest) -> Manifest:
    def read_into(view: memoryview, offset: int) -> None:
        while view:
            count = system.read_into(file, view, offset)
            if count == 0:
                raise changed(path)
            view = view[count:]
            offset += count

    return manifest_of(read_into, size, known)


def _exactly(system: System, file: int, size: int, offset: int, path: RelPath) -> bytes:
    data = read_up_to(system, file, size, offset)
    if len(data) < size:
        raise changed(path)
    return data


def read_up_to(system: System, file: int, size: int, offset: int) -> bytes:
    """Fewer than `size` bytes only where the file ends."""
    data = system.read(file, size, offset)
    while len(data) < size:
        more = system.read(file, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _state(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def changed(path: RelPath) -> FileChangedError:
    return FileChangedError(f"“{path}” changed while it was read; it will be looked at again.")
