"""What differs between two versions of a file on this disk."""

import difflib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2psync.cli.text import shown
from p2psync.errors import P2psyncError

_MAX_TEXT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Difference:
    """`lines` with their line ends: a unified diff, or one sentence if not `is_text`."""

    names: tuple[str, str]
    sizes: tuple[int, int]
    is_text: bool
    lines: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "original": self.names[0],
            "copy": self.names[1],
            "original_size": self.sizes[0],
            "copy_size": self.sizes[1],
            "binary": not self.is_text,
            "diff": "".join(self.lines) if self.is_text else None,
        }


def compare(original: Path, copy: Path, *, names: tuple[str, str]) -> Difference:
    """How `copy` differs from `original`; an absent file counts as empty.

    Raises P2psyncError if one of them cannot be read.
    """
    old, new = _read(original), _read(copy)
    sizes = (old.size, new.size)
    if old.lines is None or new.lines is None:
        same = " in more than can be shown" if old.is_long or new.is_long else ""
        sentence = (
            f"Binary files {shown(names[0])} ({old.size} bytes) and "
            f"{shown(names[1])} ({new.size} bytes) differ{same}.\n"
        )
        return Difference(names=names, sizes=sizes, is_text=False, lines=(sentence,))
    lines: list[str] = []
    for line in difflib.unified_diff(old.lines, new.lines, shown(names[0]), shown(names[1])):
        whole = line.endswith("\n")
        lines.append(line if whole else line + "\n\\ No newline at end of file\n")
    return Difference(names=names, sizes=sizes, is_text=True, lines=tuple(lines))


@dataclass(frozen=True, slots=True)
class _Version:
    """`lines` None: not text, or too long to be compared."""

    size: int
    lines: list[str] | None
    is_long: bool = False


def _read(path: Path) -> _Version:
    try:
        if path.is_symlink():
            target = os.readlink(path)
            return _Version(size=len(os.fsencode(target)), lines=[f"symlink to {shown(target)}\n"])
        # Not to follow or wait on what may have taken the file's place meanwhile.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise P2psyncError(f"{path} is not a file any more; run `p2psync conflicts list`.")
            with open(handle, "rb", closefd=False) as file:
                content = file.read(_MAX_TEXT + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        return _Version(size=0, lines=[])
    except OSError as error:
        raise P2psyncError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_TEXT:
        return _Version(size=facts.st_size, lines=None, is_long=True)
    return _Version(size=len(content), lines=_text_lines(content))


def _text_lines(content: bytes) -> list[str] | None:
    if b"\0" in content:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    # Only at line feeds: splitlines() also splits at characters that belong to the text.
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
