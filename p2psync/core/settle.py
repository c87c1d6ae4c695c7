"""When a file counts as written: policies that take times and answer "not before when?"."""

_SMALL = 4 * 1024 * 1024
_QUIET_SMALL_NS = 40_000_000
_QUIET_LARGE_NS = 1_000_000_000
_QUIET_CLOSED_NS = 250_000_000


def quiet_at(size: int, changed_ns: int, now_ns: int, *, is_closed: bool = False) -> int:
    """The time (ns) from which a file last changed at `changed_ns` may be read.

    Long enough that a program writing in several steps has finished or touched the file again;
    large files, which take long to read, wait longer, but less where `is_closed`: surely nobody has
    it open for writing any more. A change stamped in the future tells nothing, so such a file is
    not waited for.
    """
    if changed_ns > now_ns:
        return now_ns
    if size <= _SMALL:
        return changed_ns + _QUIET_SMALL_NS
    return changed_ns + (_QUIET_CLOSED_NS if is_closed else _QUIET_LARGE_NS)
