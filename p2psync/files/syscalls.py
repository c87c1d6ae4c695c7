"""The operating system, one method a call: names are looked up in an open directory, and the last
component is never followed where it is a link.

Tests put something between these calls; nothing else here may touch a folder's tree.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from enum import IntFlag

_FILE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY

_libc = ctypes.CDLL(None, use_errno=True)


def _function(names: tuple[str, ...], *arguments: type) -> Callable[..., int] | None:
    """The first of these that the C library has; None for none."""
    for name in names:
        if hasattr(_libc, name):
            function = getattr(_libc, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
            return function  # type: ignore[no-any-return]
    return None


_renameat2 = _function(
    ("renameat2",), ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)
_syncfs = _function(("syncfs",), ctypes.c_int)
_fallocate = _function(
    ("fallocate64", "fallocate"), ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
)
_sync_file_range = _function(
    ("sync_file_range64", "sync_file_range"),
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_uint,
)
_F_SETSIG = 10  # fcntl.h
_FICLONERANGE = 0x4020940D  # linux/fs.h, as on all machines but PowerPC, MIPS and SPARC
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h


class RenameFlag(IntFlag):
    """Of renameat2(2)."""

    NOREPLACE = 1
    EXCHANGE = 2


def _call(function: Callable[..., int] | None, *arguments: object) -> None:
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class System:
    """Each method is one system call and raises OSError."""

    # --- looking -----------------------------------------------------------------------------

    def open_directory(self, directory: int | None, name: str) -> int:
        """`directory` None: `name` is a path whose links are followed, the folder's own."""
        if directory is None:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        return os.open(name, _DIRECTORY, dir_fd=directory)

    def open_file(self, directory: int, name: str) -> int:
        """For reading. Does not wait for the other end of a pipe."""
        return os.open(name, os.O_RDONLY | _FILE, dir_fd=directory)

    def stat(self, directory: int, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def fstat(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def readlink(self, directory: int, name: str) -> bytes:
        return os.readlink(os.fsencode(name), dir_fd=directory)

    def names(self, directory: int) -> list[str]:
        """What is in an open directory, in no order; all of it or an error."""
        return os.listdir(directory)

    def scan(self, directory: int) -> Iterator[os.DirEntry[str]]:
        """The entries of an open directory, in no order."""
        with closing(os.scandir(directory)) as entries:
            yield from entries

    def read_into(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(descriptor, [buffer], offset)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def forget_cached(self, descriptor: int, size: int, offset: int) -> None:
        """What is read next of these bytes comes from the disk, unless someone else uses them."""
        # Of pages that are told in part nothing is forgotten.
        begin = offset - offset % mmap.PAGESIZE
        end = offset + size + -(offset + size) % mmap.PAGESIZE
        os.posix_fadvise(descriptor, begin, end - begin, os.POSIX_FADV_DONTNEED)

    def is_open_for_writing(self, descriptor: int) -> bool | None:
        """Whether anyone has the file open for writing, or mapped so; None where the system does
        not tell, as of another user's file or on a network file system."""
        try:
            # Should someone open it this very moment, we are told by a signal that does nothing.
            fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return True if error.errno == errno.EAGAIN else None
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    # --- files that are ours -------------------------------------------------------------------

    def open_staging(self, directory: int, name: str, *, create: bool) -> int:
        flags = os.O_RDWR | _FILE | (os.O_CREAT if create else 0)
        return os.open(name, flags, 0o600, dir_fd=directory)

    def create_staging(self, directory: int, name: str, mode: int) -> int:
        """Raises FileExistsError where the name is taken."""
        flags = os.O_RDWR | _FILE | os.O_CREAT | os.O_EXCL
        return os.open(name, flags, mode, dir_fd=directory)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def allocate(self, descriptor: int, size: int, offset: int) -> None:
        """Reserve room for these bytes; the file grows to hold them."""
        _call(_fallocate, descriptor, 0, offset, size)

    def room(self, descriptor: int) -> tuple[int, int]:
        """Bytes that we may still write on this file system, and its size. Zeros: not known."""
        facts = os.fstatvfs(descriptor)
        return facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize

    def clone_range(self, source: int, target: int, count: int, offsets: tuple[int, int]) -> None:
        """Have both files share these blocks until one is written to; offsets and count are
        multiples of the block size."""
        fcntl.ioctl(
            target, _FICLONERANGE, struct.pack("qQQQ", source, offsets[0], count, offsets[1])
        )

    def seek(self, descriptor: int, offset: int, whence: int) -> int:
        return os.lseek(descriptor, offset, whence)

    # --- changing ------------------------------------------------------------------------------

    def rename(self, source: int, name: str, target: int, new_name: str) -> None:
        """Replaces what has the new name."""
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def rename_flagged(
        self, source: int, name: str, target: int, new_name: str, flag: RenameFlag
    ) -> None:
        _call(_renameat2, source, os.fsencode(name), target, os.fsencode(new_name), flag)

    def link(self, source: int, name: str, target: int, new_name: str) -> None:
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def symlink(self, target: bytes, directory: int, name: str) -> None:
        if b"\0" in target:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        os.symlink(target, os.fsencode(name), dir_fd=directory)

    def make_directory(self, directory: int, name: str, mode: int) -> None:
        os.mkdir(name, mode, dir_fd=directory)

    def remove_directory(self, directory: int, name: str) -> None:
        os.rmdir(name, dir_fd=directory)

    def unlink(self, directory: int, name: str) -> None:
        os.unlink(name, dir_fd=directory)

    def set_mode(self, descriptor: int, mode: int) -> None:
        os.fchmod(descriptor, mode)

    def set_mtime(self, descriptor: int, mtime_ns: int) -> None:
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def set_mtime_of_link(self, directory: int, name: str, mtime_ns: int) -> None:
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)

    # --- making durable ------------------------------------------------------------------------

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def sync_file_system(self, descriptor: int) -> None:
        _call(_syncfs, descriptor)

    def start_writing(self, descriptor: int, size: int, offset: int) -> None:
        """Have the disk begin with these bytes; makes nothing durable."""
        _call(_sync_file_range, descriptor, offset, size, _START_WRITING)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)
