"""Directories by handle: each component is opened in the one before, and no link is followed, so a
directory that is swapped for a link at any moment leads nowhere."""

import contextlib
import errno
from collections import OrderedDict
from types import TracebackType
from typing import Self

from p2psync.core.relpath import RelPath
from p2psync.core.relpath import parent as parent_of
from p2psync.files.syscalls import System

_MOST_OPEN = 64

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors of opening a directory or file that say: no such thing there (a link is not followed)."""


class Tree:
    """The directories below one that is open. For one thread and one short time; a handle that it
    gave out is good until that of another directory is asked for."""

    def __init__(self, system: System, top: int) -> None:
        """Takes over `top`."""
        self.system = system
        self.top = top
        self._open: OrderedDict[str, int] = OrderedDict()
        self._kept: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for handle in (*self._open.values(), *self._kept.values(), self.top):
            self.system.close(handle)
        self._open.clear()
        self._kept.clear()

    def directory(self, path: RelPath | None, *, make: bool = False) -> int:
        """A handle of the directory at `path` (None: the top); with `make`, made where missing,
        for its owner only. Raises OSError, one of ABSENT if there is no such directory."""
        if path is None:
            return self.top
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        above = self.directory(parent_of(path), make=make)
        name = path.rpartition("/")[2]
        try:
            opened = self.system.open_directory(above, name)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                self.system.make_directory(above, name, 0o700)
            opened = self.system.open_directory(above, name)
        self._open[path] = opened
        if len(self._open) > _MOST_OPEN:
            self.system.close(self._open.popitem(last=False)[1])
        return opened

    def place(self, path: RelPath, *, make: bool = False) -> tuple[int, str]:
        """The directory that holds `path`, and the name in it."""
        return self.directory(parent_of(path), make=make), path.rpartition("/")[2]

    def places(self, one: RelPath, other: RelPath) -> tuple[tuple[int, str], tuple[int, str]]:
        """Of both, with handles that are good together."""
        above = parent_of(one)
        first = self.directory(above)
        pinned = None if above is None else self._open.pop(above)
        try:
            second = self.place(other)
        finally:
            if above is not None and pinned is not None:
                first = self._open.setdefault(above, pinned)
                if first != pinned:
                    self.system.close(pinned)
        return (first, one.rpartition("/")[2]), second

    def keep(self, path: RelPath) -> int:
        """A handle of one of our own directories, made where missing, that is good to the end."""
        if path not in self._kept:
            self.directory(path, make=True)
            self._kept[path] = self._open.pop(path)
        return self._kept[path]

    def forget(self, path: RelPath) -> None:
        """The directory at `path` may not be the same one any more."""
        below = path + "/"
        for known in [known for known in self._open if known == path or known.startswith(below)]:
            self.system.close(self._open.pop(known))
