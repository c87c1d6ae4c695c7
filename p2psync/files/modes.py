"""Permission bits of the files that are placed: the exec bit is the entry's, all else is local."""

import errno
import re
import stat
from functools import cache

from p2psync.files.syscalls import System

_NO_MODES = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""Said by file systems without permissions. Of a file that belongs to someone else EPERM is said of
its time as well."""
_READ_BITS = 0o444
_EXEC_BITS = 0o111
_USUAL_UMASK = 0o022


def set_mode(system: System, file: int, mode: int) -> None:
    """As far as the file system has permissions."""
    try:
        system.set_mode(file, mode)
    except OSError as error:
        if error.errno not in _NO_MODES:
            raise


def mode_of_new(*, executable: bool) -> int:
    return _with_exec(0o666 & ~umask(), executable=executable)


def mode_of_old(mode: int, *, executable: bool) -> int:
    """Of a file that replaces one with `mode`, which keeps its bits as long as they say the same.
    The bits that lend a program its owner's rights are not kept."""
    permissions = mode & 0o777
    if bool(permissions & stat.S_IXUSR) == executable:
        return permissions
    return _with_exec(permissions, executable=executable)


def _with_exec(permissions: int, *, executable: bool) -> int:
    """Who may read it may execute it, and its owner in any case."""
    if not executable:
        return permissions & ~_EXEC_BITS
    return permissions | (permissions & _READ_BITS) >> 2 | stat.S_IXUSR


@cache
def umask() -> int:
    """Of this process, as it was at first use: os.umask could tell it only by changing it, which
    other threads would notice."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            found = re.search(r"^Umask:\s*([0-7]+)$", status.read(), re.MULTILINE)
    except OSError:
        return _USUAL_UMASK
    return int(found[1], 8) if found else _USUAL_UMASK
