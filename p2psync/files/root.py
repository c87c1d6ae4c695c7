"""The folder's own directory: how it is marked when the folder is added, and known again later.

`.p2psync/folder` holds the folder's token. A path may come to lead elsewhere at any time (a disk is
unmounted, a directory replaced), so each use opens it anew and looks for the marker: without it
nothing is read as missing and nothing is written. No handle is kept, so the disk can be unmounted.
"""

import errno
import os
from pathlib import Path

from p2psync.core.relpath import INTERNAL
from p2psync.files.syscalls import System
from p2psync.ports import RootUnavailableError

MARKER = "folder"
STAGING = "tmp"
TRASH = "trash"
DAMAGED = "damaged"

_LONGEST_MARKER = 4096

_Mark = tuple[int, int, int, int]
"""Device, inode, mtime and ctime of a marker."""


class Root:
    """Opens the directory at `path` if it is the one marked with `token`."""

    def __init__(self, system: System, path: Path, token: str) -> None:
        self._system = system
        self._path = path
        self._token = token
        self._verified: _Mark | None = None
        """The marker that was read last and held the token: the same one need not be read again."""

    def open(self) -> int:
        """A handle of the root, to be closed by the caller. Raises RootUnavailableError."""
        try:
            root = self._system.open_directory(None, str(self._path))
        except OSError as error:
            raise self._unavailable(_why_not_opened(error)) from None
        try:
            self._verify(root)
        except BaseException:
            self._system.close(root)
            raise
        return root

    def _verify(self, root: int) -> None:
        try:
            found = self._system.stat(root, f"{INTERNAL}/{MARKER}")
            mark = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            if mark == self._verified:
                return
            token = _read_token(self._system, root)
        except OSError as error:
            raise self._unavailable(
                f"its marker {INTERNAL}/{MARKER} cannot be read ({said(error)}), so this may not "
                "be the directory that was added. Perhaps a disk is not mounted"
            ) from None
        if token != self._token:
            raise self._unavailable(
                f"its marker {INTERNAL}/{MARKER} is that of another folder, so this is not the "
                "directory that was added"
            )
        self._verified = mark

    def _unavailable(self, why: str) -> RootUnavailableError:
        return RootUnavailableError(
            f"The folder's directory {self._path} cannot be used: {why}. Mount the disk or put the "
            "directory back; if it is gone for good, use `p2psync folder remove`."
        )


def _why_not_opened(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is missing"
    if error.errno == errno.ENOTDIR:
        return "it is not a directory any more"
    return f"it cannot be opened ({said(error)})"


def said(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _read_token(system: System, root: int) -> str:
    internal = system.open_directory(root, INTERNAL)
    try:
        marker = system.open_file(internal, MARKER)
        try:
            text = system.read(marker, _LONGEST_MARKER, 0)
        finally:
            system.close(marker)
    finally:
        system.close(internal)
    return text.decode("utf-8", "replace").partition("\n")[0]
