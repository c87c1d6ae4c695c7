"""Tells damaged files from edited ones, when a scan reads their bytes."""

from collections.abc import Container

from p2psync.core.entry import Fingerprint, Kind
from p2psync.ports import FolderIndex, Held

Identity = tuple[int, int, int]
"""What a rename leaves as it is."""
Lost = dict[tuple[Identity, bytes], bytes]
"""Of damaged files, by what they are: the content that they should have."""

_AT_A_TIME = 10_000


def identity(mark: Fingerprint) -> Identity:
    return mark.inode, mark.size, mark.mtime_ns


async def lost_contents(index: FolderIndex, among: Container[Identity]) -> Lost:
    """Of the damaged files that the index knows, those that may be `among` these."""
    lost, after = Lost(), ""
    if not (await index.counts()).damaged:
        return lost
    while damaged := await index.damaged(_AT_A_TIME, after=after):
        after = damaged[-1][0]
        for _, held in damaged:
            mark = held.fingerprint
            if held.damage and mark is not None and identity(mark) in among:
                lost[identity(mark), held.damage] = held.entry.content
    return lost


def content_meant(held: Held | None, read: Fingerprint, content: bytes, lost: Lost) -> bytes | None:
    """Where the bytes read are damaged, as the fingerprint tells or as is known of them, at this
    path or moved to it: the content that they should be. Not so if the file has another time: a
    person says that it is right. Equal bytes in another file may be meant so: much damage is the
    same, such as nothing but zeros."""
    mark = held.fingerprint if held is not None and read.kind == Kind.FILE else None
    if held is not None and mark is not None and content != held.entry.content:
        is_known = content != b"" and held.damage == content
        if mark.unchanged(read) or (is_known and mark.mtime_ns == read.mtime_ns):
            return held.entry.content
    return lost.get((identity(read), content))
