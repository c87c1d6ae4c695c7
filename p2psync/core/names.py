"""What a device or a folder may be called. Names come from peers too, and stand in file names."""

import unicodedata
from functools import lru_cache

MAX_NAME = 64
_JOINERS = "\u200c\u200d"
"""Invisible, but letters of some scripts and many emoji are made with them."""


@lru_cache(maxsize=1024)
def name_fault(name: str) -> str | None:
    """Why `name` is no name, as the end of a sentence; None if it is one."""
    if not 1 <= len(name) <= MAX_NAME:
        return f"a name has 1 to {MAX_NAME} characters"
    if "/" in name:
        return "a name holds no slash"
    if not all(map(_is_shown, name)):
        return "a name holds no control characters"
    if name != name.strip():
        return "a name neither begins nor ends with a space"
    return None


def _is_shown(char: str) -> bool:
    if char == " " or char in _JOINERS:
        return True
    return unicodedata.category(char)[0] not in "CZ"
