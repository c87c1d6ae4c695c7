"""Errors of the operating system as a sentence and a next step."""

import errno
import os
from collections.abc import Mapping

from p2psync.ports import Problem

_FULL = "Free some space there; synchronizing goes on by itself."

_KNOWN: Mapping[int, tuple[str, str]] = {
    errno.ENOSPC: ("The disk is full.", _FULL),
    errno.EDQUOT: ("Your quota on this disk is used up.", _FULL),
    errno.EACCES: ("Permission denied.", "Give the user that runs p2psync access to it."),
    errno.EPERM: (
        "The operation is not permitted.",
        "See with `lsattr` whether it is protected from changes, and whom it belongs to.",
    ),
    errno.EROFS: ("The file system is read-only.", "Mount it writable."),
    errno.ENAMETOOLONG: (
        "The name is too long for this file system.",
        "Give it a shorter name on the device where it was made.",
    ),
    errno.EIO: (
        "The disk reports an input/output error.",
        "Check the disk, and that you have a copy of the data elsewhere.",
    ),
    errno.EXDEV: (
        "Another file system is mounted there.",
        "Add it as a folder of its own.",
    ),
    errno.EBUSY: ("It is in use by the system.", "See whether something is mounted there."),
    errno.EFBIG: ("The file is too large for this file system.", "Move it out of the folder."),
    errno.EMFILE: ("Too many files are open.", "Raise the limit (`ulimit -n`) and start again."),
    errno.EINVAL: (
        "This file system does not accept the name.",
        "Rename it on the device where it was made.",
    ),
    errno.EILSEQ: (
        "This file system does not accept the name.",
        "Rename it on the device where it was made.",
    ),
}


def kind_of_problem(error: OSError, path: str) -> Problem:
    number = error.errno or 0
    reason, next_step = _KNOWN.get(
        number,
        (
            f"The system says: {os.strerror(number) if number else error}.",
            "Repair that; it is tried again by itself.",
        ),
    )
    return Problem(readable(path), reason, next_step)


def readable(path: str) -> str:
    """`path` with the bytes that are no UTF-8 escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
