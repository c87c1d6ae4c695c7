"""Makes files and directories durable, as far as the file system knows how."""

import errno

from p2psync.files.syscalls import System

FEW = 3
"""Up to so many files or directories, one fsync each is cheaper than a sync of the file system."""

_UNKNOWN_HERE = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
"""Network file systems say so; what they do instead is all there is. Any other error is fatal."""


def sync_file(system: System, descriptor: int) -> None:
    """Of a file or directory. Raises OSError when its data may not be on the disk."""
    try:
        system.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN_HERE:
            raise


def sync_file_system(system: System, descriptor: int) -> bool:
    """Everything on the file system of an open file or directory; False where that is not to be
    had. Raises OSError when something may not be on the disk."""
    try:
        system.sync_file_system(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN_HERE:
            raise
        return False
    return True
