"""What lies below a root, each file as its token. It reads the disk by itself and trusts nobody."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.oracle.tokens import describe, token_of, token_of_link

_ATTEMPTS = 20

IsPrivate = Callable[[str], bool]
"""Whether a path belongs to the synchronizer: its state, its history, what it receives."""


class Kind(Enum):
    FILE = "file"
    LINK = "link"
    DIRECTORY = "directory"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at one path."""

    kind: Kind
    token: int | None = None
    executable: bool = False
    wrong: str = ""
    """Of a file or link that holds no token: what it holds instead."""
    mtime_ns: int = 0

    @property
    def shown(self) -> tuple[Kind, int | None, bool, str]:
        """What has to be the same on all devices."""
        return self.kind, self.token, self.executable, self.wrong

    def __str__(self) -> str:
        if self.kind not in (Kind.FILE, Kind.LINK):
            return str(self.kind.value)
        held = f"token {self.token}" if self.token is not None else self.wrong
        return f"{self.kind.value} with {held}{', executable' if self.executable else ''}"


Tree = Mapping[str, Found]


def nothing_is_private(path: str) -> bool:
    return False


def open_file(path: str | Path) -> int:
    """A descriptor of the regular file that is there now, to read. Raises OSError, also where
    something else took its place since it was seen."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "This is no file any more", os.fspath(path))


def look(path: str | Path) -> Found:
    """What lies at a path now. Raises OSError."""
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return Found(Kind.DIRECTORY)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        token = token_of_link(target)
        wrong = "" if token is not None else f"target {target!r}"
        return Found(Kind.LINK, token, wrong=wrong)
    if not stat.S_ISREG(status.st_mode):
        return Found(Kind.OTHER)
    fd = open_file(path)
    with os.fdopen(fd, "rb", buffering=0) as file:
        return _found_file(file.readall(), os.fstat(fd))


def _found_file(content: bytes, status: os.stat_result) -> Found:
    token = token_of(content)
    return Found(
        Kind.FILE,
        token,
        executable=bool(status.st_mode & stat.S_IXUSR),
        wrong="" if token is not None else describe(content),
        mtime_ns=status.st_mtime_ns,
    )


def read_tree(root: str | Path, is_private: IsPrivate = nothing_is_private) -> dict[str, Found]:
    """Everything below a root. What goes away meanwhile is left out after some attempts."""
    for attempt in range(_ATTEMPTS):
        try:
            return dict(_walk(os.fspath(root), "", is_private, strict=attempt < _ATTEMPTS - 1))
        except OSError:
            continue
    raise AssertionError("unreachable")


def _walk(
    root: str, below: str, is_private: IsPrivate, *, strict: bool
) -> Iterator[tuple[str, Found]]:
    try:
        names = sorted(os.listdir(os.path.join(root, below)))
    except OSError:
        if strict:
            raise
        return
    for name in names:
        path = f"{below}/{name}" if below else name
        if is_private(path):
            continue
        try:
            found = look(os.path.join(root, path))
        except OSError:
            if strict:
                raise
            continue
        yield path, found
        if found.kind is Kind.DIRECTORY:
            yield from _walk(root, path, is_private, strict=strict)


def same(trees: list[dict[str, Found]]) -> bool:
    """Whether all trees show the same."""
    first, *others = trees
    return all(
        tree.keys() == first.keys()
        and all(found.shown == first[path].shown for path, found in tree.items())
        for tree in others
    )
