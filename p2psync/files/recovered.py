"""Gives an object that nobody expected a name of its own in the tree, where the next scan finds it
and shares it like any other: it may be someone's edit and is never dropped."""

import contextlib
import datetime

import blake3

from p2psync.core.relpath import MAX_COMPONENT_BYTES, RelPath, parent
from p2psync.files.moves import Mover, Spot
from p2psync.files.tree import ABSENT, Tree

_ATTEMPTS = 100


def surface(tree: Tree, mover: Mover, spot: Spot, path: RelPath, *, now_ns: int) -> RelPath | None:
    """Move what is at `spot` beside `path`, or further up if its directory is gone; the directory
    where it is now. Raises OSError, and then it is still at `spot`."""
    directory = parent(path)
    while True:
        try:
            handle = tree.directory(directory)
            break
        except OSError as error:
            if error.errno not in ABSENT or directory is None:
                raise
            directory = parent(directory)
    found = tree.system.stat(*spot)
    for attempt in range(_ATTEMPTS):
        mark = f"{found.st_ino}.{found.st_mtime_ns}.{found.st_size}.{attempt}"
        with contextlib.suppress(FileExistsError):
            mover.put(spot, (handle, name_of_recovered(path, mark, now_ns)))
            return directory
    raise FileExistsError("no free name")


def name_of_recovered(path: RelPath, mark: str, now_ns: int) -> str:
    """`NAME (recovered YYYY-MM-DD HASH).EXT`"""
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix) > 16:
        stem, dot, suffix = name, "", ""
    day = datetime.datetime.fromtimestamp(now_ns // 10**9, datetime.UTC)
    digest = blake3.blake3(mark.encode()).hexdigest()[:6]
    tail = f" (recovered {day:%Y-%m-%d} {digest}){dot}{suffix}"
    room = MAX_COMPONENT_BYTES - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore") + tail
