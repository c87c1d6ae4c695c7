"""Contents that name themselves: every byte of a file follows from its token and its size.

So a look at any file tells which write made it, and a prefix or a mix of two is no token at all.
"""

import hashlib
import re
from functools import lru_cache

SMALLEST = 48
ONE_PAGE = 4096
"""An edit in place of no more than this is seen as a whole or not at all."""

_HEAD = re.compile(rb"synccheck ([0-9]{1,12}) ([0-9]{1,12})\n")
_LINK = re.compile(r"synccheck-link-([0-9]{1,12})")


def file_content(token: int, size: int) -> bytes:
    """What a file with this token and this size, `SMALLEST` or more, holds."""
    head = f"synccheck {token} {size}\n".encode()
    assert size >= SMALLEST >= len(head)
    return head + _body(head, size - len(head))


@lru_cache(maxsize=64)
def _body(head: bytes, size: int) -> bytes:
    return hashlib.shake_128(head).digest(size)


def token_of(content: bytes) -> int | None:
    """The token of a file's content; None if it is no token's whole content."""
    found = _HEAD.match(content)
    if found is None or int(found[2]) != len(content):
        return None
    token = int(found[1])
    return (
        token if len(content) >= SMALLEST and content == file_content(token, len(content)) else None
    )


def link_target(token: int) -> str:
    return f"synccheck-link-{token}"


def token_of_link(target: str) -> int | None:
    found = _LINK.fullmatch(target)
    return int(found[1]) if found else None


def describe(content: bytes) -> str:
    """A content that is no token, for people."""
    found = _HEAD.match(content)
    if not content:
        return "nothing (0 bytes)"
    if found is None:
        return f"{len(content)} bytes that begin with {content[:24]!r}"
    token, size = int(found[1]), int(found[2])
    if len(content) < size and content == file_content(token, size)[: len(content)]:
        return f"the first {len(content)} of {size} bytes of token {token}"
    return f"{len(content)} bytes that begin as token {token} of {size} bytes and go on otherwise"
