"""Renames that destroy nothing, and what stands in for them where a file system lacks them."""

import contextlib
import errno

from p2psync.files.syscalls import RenameFlag, System

_NO_FLAGS = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})

Spot = tuple[int, str]
"""An open directory and a name in it."""


class Mover:
    """Remembers what the folder's file system refused once."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.can_swap = True

    def move(self, source: Spot, target: Spot) -> None:
        """Rename what anyone may replace meanwhile to a name that is free; FileExistsError if it is
        not, and another OSError where the file system has no such call."""
        self._system.rename_flagged(*source, *target, RenameFlag.NOREPLACE)

    def put(self, source: Spot, target: Spot) -> None:
        """Rename what is ours alone to a name that is free; FileExistsError if it is not.

        Without renameat2 by a hard link, and without those (FAT) by looking first: there, and only
        there, what someone else puts at the name in that instant is replaced.
        """
        if self.can_swap:
            try:
                self.move(source, target)
                return
            except OSError as error:
                if error.errno not in _NO_FLAGS:
                    raise
                self.can_swap = False
        try:
            self._system.link(*source, *target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with contextlib.suppress(FileNotFoundError):
                self._system.stat(*target)
                raise FileExistsError(errno.EEXIST, "the name is taken") from None
            self._system.rename(*source, *target)
        else:
            self._system.unlink(*source)

    def swap(self, one: Spot, other: Spot) -> bool:
        """Exchange two objects in one step; False where the file system cannot."""
        if self.can_swap:
            try:
                self._system.rename_flagged(*one, *other, RenameFlag.EXCHANGE)
                return True
            except OSError as error:
                if error.errno not in _NO_FLAGS:
                    raise
                self.can_swap = False
        return False
