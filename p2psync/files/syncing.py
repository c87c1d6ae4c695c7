"""Makes files and directories durable, as far as the file system knows how."""

import errno

from p2psync.core.relpath import RelPath
from p2psync.files.syscalls import System
from p2psync.files.tree import ABSENT, Tree

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


class Unsynced:
    """What of a tree is to be made durable."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._directories: dict[RelPath | None, None] = {}
        self._files: list[RelPath] = []

    def directory(self, path: RelPath | None) -> None:
        """Of where a file moved to and from, the first is to be named first: then a file system
        that keeps no order of its own has it twice rather than not at all."""
        self._directories[path] = None

    def file(self, path: RelPath) -> None:
        self._files.append(path)

    def sync(self, *, many: bool = False, one_by_one: bool = False) -> None:
        """All that was named since the last time. `many`: there is more than was named;
        `one_by_one`: an error is to be of just that. Raises OSError when something may not be on
        the disk."""
        system = self._tree.system
        many = many or bool(self._files) or len(self._directories) > FEW
        if one_by_one or not many or not sync_file_system(system, self._tree.top):
            for path in self._files:
                self._sync(path)
            for directory in self._directories:
                try:
                    handle = self._tree.directory(directory)
                except OSError as error:
                    if error.errno not in ABSENT:
                        raise
                else:
                    sync_file(system, handle)
        self._files.clear()
        self._directories.clear()

    def _sync(self, path: RelPath) -> None:
        try:
            file = self._tree.system.open_file(*self._tree.place(path))
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            return
        try:
            sync_file(self._tree.system, file)
        finally:
            self._tree.system.close(file)
