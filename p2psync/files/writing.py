"""Small files of our own, below `.p2psync`."""

import contextlib

from p2psync.files.syscalls import System

_NEW = ".new"


def write_durably(system: System, directory: int, name: str, data: bytes) -> None:
    """Put a file at `name` wholly, or not at all and leave nothing else."""
    new = name + _NEW
    discard(system, directory, new)
    try:
        file = system.open_staging(directory, new, create=True)
        try:
            write_all(system, file, data, 0)
            system.fsync(file)
        finally:
            system.close(file)
        system.rename(directory, new, directory, name)
        system.fsync(directory)
    except BaseException:
        discard(system, directory, new)
        raise


def write_all(system: System, file: int, data: bytes | memoryview, offset: int) -> None:
    count = system.write(file, data, offset)
    while count < len(data):
        data = memoryview(data)[count:]
        offset += count
        count = system.write(file, data, offset)


def discard(system: System, directory: int, name: str) -> None:
    """Drop a file of ours; that it is not there, or cannot be dropped, is no error."""
    with contextlib.suppress(OSError):
        system.unlink(directory, name)
