"""From a stat to a `Fingerprint`: what counts as the same object in the same state.

Of a directory only the kind counts, everything else is zero: its times and size follow its
children, who speak for themselves, and another directory at the path is as good. Of permissions
only the owner's execute bit counts.
"""

import os
import stat

from p2psync.core.entry import Fingerprint, Kind

DIRECTORY = Fingerprint(Kind.DIRECTORY, 0, 0, 0, 0, executable=False, racy=False)

UNSEEN = Fingerprint(Kind.FILE, 0, 0, 0, 0, executable=False, racy=True)
"""Of what may be there but cannot be looked at: equal to nothing, and never a sign of absence."""

_TICK_NS = 20_000_000
"""The kernel stamps with the time of its last timer tick; the slowest have 100 a second."""
_COARSE_TICK_NS = 2_000_000_000
"""Of file systems that keep whole seconds (FAT: every other one)."""
_AHEAD_NS = 2_000_000_000
"""How far a server's clock may be ahead of ours. Beyond, the stamp is not of a change made now, and
to doubt it would be to doubt it until that time has come."""


def kind_of(found: os.stat_result) -> Kind | None:
    """None for pipes, sockets and devices, which are not shared."""
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    return Kind.SYMLINK if stat.S_ISLNK(mode) else None


def fingerprint_of(found: os.stat_result, *, now_ns: int) -> Fingerprint | None:
    """`now_ns`: when looking began, or when reading did. None for what is not shared."""
    kind = kind_of(found)
    if kind is None or kind is Kind.DIRECTORY:
        return DIRECTORY if kind is not None else None
    ctime = found.st_ctime_ns
    return Fingerprint(
        kind,
        found.st_size,
        found.st_mtime_ns,
        ctime,
        found.st_ino,
        executable=is_executable(found),
        racy=is_recent(found.st_mtime_ns, found, now_ns) or is_recent(ctime, found, now_ns),
    )


def is_executable(found: os.stat_result) -> bool:
    """Of a file."""
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IXUSR)


def is_recent(stamp_ns: int, found: os.stat_result, now_ns: int) -> bool:
    """Whether a change made after `now_ns` may be given this very stamp."""
    tick = _TICK_NS if found.st_ctime_ns % 1_000_000_000 else _COARSE_TICK_NS
    return now_ns - tick <= stamp_ns <= now_ns + _AHEAD_NS


def is_as_expected(found: os.stat_result | None, expected: Fingerprint | None) -> bool:
    """None: nothing is there."""
    if found is None or expected is None:
        return found is None and expected is None
    seen = fingerprint_of(found, now_ns=0)
    return seen is not None and seen[:6] == expected[:6]


def is_same_but_moved(found: os.stat_result, expected: Fingerprint) -> bool:
    """Likewise, but for the ctime, which a rename sets."""
    return (
        kind_of(found) is expected.kind
        and found.st_ino == expected.inode
        and found.st_size == expected.size
        and found.st_mtime_ns == expected.mtime_ns
    )
