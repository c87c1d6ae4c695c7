"""What happens to a directory when it becomes a folder's root, and when it ceases to be one."""

import contextlib
import errno
import os
import stat
import time
from pathlib import Path

from p2psync import failpoints
from p2psync.config import TrashConfig
from p2psync.core.relpath import INTERNAL, RelPath
from p2psync.errors import UsageError
from p2psync.files.mounts import MOUNTS
from p2psync.files.moves import Mover
from p2psync.files.root import DAMAGED, MARKER, STAGING, TRASH, Root, said
from p2psync.files.syscalls import System
from p2psync.files.trash import Trash, discard_tree
from p2psync.files.tree import Tree
from p2psync.files.writing import discard, write_durably
from p2psync.ports import RootUnavailableError

_FOLDS_CASE = errno.ENOTUNIQ
"""Stands for: names that differ in upper and lower case alone are one and the same."""

_EXPLANATION = "This marks a folder of p2psync; without this file, it is not synchronized.\n"


def adopt_root(path: Path, token: str) -> None:
    """Make the directory at `path` the root of the folder `token`, durably; the marker of an
    earlier folder is replaced. Raises UsageError, and then has left nothing behind."""
    system = System()
    try:
        root = system.open_directory(None, str(path))
        try:
            _check_writable(root)
            _mark(system, root, token)
        finally:
            system.close(root)
    except OSError as error:
        raise UsageError(_refusal(path, error)) from None


def _check_writable(root: int) -> None:
    """The kernel says no here for what is protected from changes, also to the superuser."""
    allowed = os.R_OK | os.W_OK | os.X_OK
    if os.fstatvfs(root).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if not os.access(".", allowed, dir_fd=root, effective_ids=True):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _mark(system: System, root: int, token: str) -> None:
    made_internal = _make_directory(system, root, INTERNAL)
    made: list[str] = []
    try:
        _check_case(system, root)
        internal = system.open_directory(root, INTERNAL)
        try:
            made = [name for name in (STAGING, TRASH) if _make_directory(system, internal, name)]
            failpoints.reach("adopt.before-marking")
            write_durably(system, internal, MARKER, f"{token}\n{_EXPLANATION}".encode())
            system.fsync(root)
        except BaseException:
            for name in made:
                with contextlib.suppress(OSError):
                    system.remove_directory(internal, name)
            if made_internal:
                discard(system, internal, MARKER)
            raise
        finally:
            system.close(internal)
    except BaseException:
        if made_internal:
            with contextlib.suppress(OSError):
                system.remove_directory(root, INTERNAL)
        raise


def _check_case(system: System, root: int) -> None:
    """Where “a” and “A” are one file, what others have at both would be mixed up."""
    ours = system.stat(root, INTERNAL)
    try:
        other = system.stat(root, INTERNAL.upper())
    except FileNotFoundError:
        return
    if (ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino):
        raise OSError(_FOLDS_CASE, os.strerror(_FOLDS_CASE))


def _make_directory(system: System, directory: int, name: str) -> bool:
    """Whether it was not there before."""
    try:
        system.make_directory(directory, name, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(system.stat(directory, name).st_mode):
            raise
        return False
    return True


def _refusal(path: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"There is no directory {path}. Make it first, or check the path."
        case errno.ENOTDIR:
            return f"{path} is not a directory. Name the directory that holds the files."
        case errno.EEXIST:
            return (
                f"{path}/{INTERNAL} holds something that p2psync did not make. "
                "Move it elsewhere and try again."
            )
        case errno.EROFS:
            return f"{path} is on a read-only file system. Mount it writable and try again."
        case errno.EACCES | errno.EPERM:
            return (
                f"{path} cannot be read and changed. Give the user that runs p2psync the right to, "
                "and see with `lsattr -d` that it is not protected from changes."
            )
        case _ if error.errno == _FOLDS_CASE:
            return (
                f"{path} is on a file system that does not tell upper from lower case in names, so "
                "files of others could get mixed up there. Choose a directory on another one."
            )
        case errno.ENOSPC | errno.EDQUOT:
            return f"There is no space left for {path}. Free some on that disk and try again."
        case _:
            return (
                f"{path} cannot hold a folder ({said(error)}). "
                "Choose a directory on an ordinary file system."
            )


def release_root(path: Path, token: str) -> None:
    """Unmark the root of the folder `token` that was removed. Its files stay, and so does what is
    in its trash. Does what it can."""
    system = System()
    try:
        root = Root(system, path, token).open()
    except RootUnavailableError:
        return
    with Tree(system, root) as tree, contextlib.suppress(OSError):
        internal = tree.keep(RelPath(INTERNAL))
        discard(system, internal, MARKER)
        discard(system, internal, MOUNTS)
        Trash(TrashConfig(), time.time_ns, Mover(system)).recover(tree)
        discard_tree(internal, STAGING)
        with contextlib.suppress(OSError):
            system.remove_directory(internal, TRASH)
        with contextlib.suppress(OSError):
            system.remove_directory(internal, DAMAGED)
        system.remove_directory(root, INTERNAL)
