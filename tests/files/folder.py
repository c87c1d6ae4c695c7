"""A real folder for tests: its disk, and its user."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2psync.config import TrashConfig
from p2psync.files.adopt import adopt_root
from p2psync.files.local_disk import LocalDisk
from p2psync.files.syscalls import System
from tests.support.contracts.disk import Node

TOKEN = "0123456789abcdef"
LATER_NS = 1_900_000_000 * 10**9
"""A clock that is past whatever the file system stamps, so that nothing is racy."""


@dataclass
class Folder:
    root: Path
    disk: LocalDisk

    def write(self, path: str, data: bytes) -> None:
        (self.root / path).write_bytes(data)

    def link(self, path: str, target: str) -> None:
        (self.root / path).symlink_to(target)

    def make_directory(self, path: str) -> None:
        (self.root / path).mkdir()

    def remove(self, path: str) -> None:
        place = self.root / path
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    def rename(self, old: str, new: str) -> None:
        (self.root / old).rename(self.root / new)

    def make_executable(self, path: str) -> None:
        (self.root / path).chmod(0o755)

    def tree(self) -> dict[str, Node]:
        found = tree_of(self.root)
        return {path: node for path, node in found.items() if path.split("/")[0] != ".p2psync"}

    def trash(self) -> list[bytes]:
        found = tree_of(self.root / ".p2psync/trash")
        return [node for node in found.values() if isinstance(node, bytes)]

    def in_trash(self) -> list[str]:
        """Original paths of the files in the trash."""
        found = tree_of(self.root / ".p2psync/trash")
        return [path.split("/", 2)[2] for path, node in found.items() if node is not None]

    def in_trash_top(self) -> list[str]:
        return sorted(os.listdir(self.root / ".p2psync/trash"))

    def left_in_staging(self) -> list[str]:
        return sorted(os.listdir(self.root / ".p2psync/tmp"))

    def lose_root(self) -> None:
        self.root.rename(self.root.with_name("elsewhere"))

    def reopen(self, system: System | None = None, *, max_bytes: int = 10**9) -> LocalDisk:
        return disk_at(self.root, system, max_bytes=max_bytes)


def disk_at(
    root: Path,
    system: System | None = None,
    *,
    max_age_days: int = 30,
    max_bytes: int = 10**9,
    now_ns: Callable[[], int] = lambda: LATER_NS,
) -> LocalDisk:
    trash = TrashConfig(max_age_days=max_age_days, max_bytes=max_bytes)
    return LocalDisk(root, token=TOKEN, trash=trash, now_ns=now_ns, system=system)


def make_folder(path: Path, system: System | None = None, *, max_bytes: int = 10**9) -> Folder:
    path.mkdir()
    adopt_root(path, TOKEN)
    return Folder(path, disk_at(path, system, max_bytes=max_bytes))


def tree_of(top: Path) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for directory, names, files in os.walk(top):
        for name in names + files:
            place = Path(directory, name)
            path = str(place.relative_to(top))
            if place.is_symlink():
                found[path] = os.readlink(place)
            elif place.is_dir():
                found[path] = None
            elif place.is_file():
                found[path] = place.read_bytes()
    return dict(sorted(found.items()))
