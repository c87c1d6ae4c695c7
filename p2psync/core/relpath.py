"""Paths inside a folder, as every device names them.

A `RelPath` is only ever made by `parse_relpath`, so holding one is the proof that it stays inside
its folder: that check is in the type and not at the places that open files.
"""

import re
from typing import NewType

from p2psync.errors import P2psyncError

RelPath = NewType("RelPath", str)
"""Components joined by "/", as the author's file system spelled them (no Unicode folding)."""

INTERNAL = ".p2psync"
"""The one directory of a folder that is ours: marker, staging and trash. It is never shared."""

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 3800
"""Below Linux's 4096, so that the folder's own path fits in front of it."""
MAX_COMPONENTS = 200

_PLAIN = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/){0,20}[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Most paths, of which one look shows that nothing is wrong, where they are short enough."""


class UnsafePathError(P2psyncError):
    """The text cannot name anything inside a folder."""


def parse_relpath(text: str) -> RelPath:
    """Check `text` and return it as a RelPath; raises UnsafePathError saying what is wrong."""
    if len(text) <= MAX_COMPONENT_BYTES and _PLAIN.fullmatch(text):
        return RelPath(text)
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnsafePathError("The name is not valid UTF-8.") from None
    if not raw or len(raw) > MAX_PATH_BYTES:
        raise UnsafePathError(f"The path has {len(raw)} bytes; 1 to {MAX_PATH_BYTES} are allowed.")
    if b"\0" in raw:
        raise UnsafePathError("The path holds a NUL character.")
    parts = text.split("/")
    if len(parts) > MAX_COMPONENTS:
        raise UnsafePathError(f"The path is nested more than {MAX_COMPONENTS} levels deep.")
    for part in parts:
        if part in ("", ".", ".."):
            raise UnsafePathError("The path has an empty, “.” or “..” component.")
        # In any case: where the file system does not tell them apart, that is ours too.
        if len(part) == len(INTERNAL) and part.casefold() == INTERNAL:
            raise UnsafePathError(f"“{INTERNAL}” belongs to p2psync and is never shared.")
        if len(part) > 63 and len(part.encode("utf-8")) > MAX_COMPONENT_BYTES:
            raise UnsafePathError(f"A name in the path is over {MAX_COMPONENT_BYTES} bytes long.")
    return RelPath(text)


def parent(path: RelPath) -> RelPath | None:
    """The directory that holds `path`; None for what lies at the folder's top."""
    head, _, _ = path.rpartition("/")
    return RelPath(head) if head else None


def ancestors(path: RelPath) -> list[RelPath]:
    """Every directory above `path`, the topmost first."""
    return [RelPath(path[:at]) for at, char in enumerate(path) if char == "/"]


def child(directory: RelPath | None, name: str) -> RelPath:
    """`name` inside `directory` (None: the folder's top), checked like any other path."""
    return parse_relpath(f"{directory}/{name}" if directory else name)


def depth(path: RelPath) -> int:
    return path.count("/")
