"""How values become lines a terminal can be trusted with."""

import unicodedata
from collections.abc import Sequence

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def shown(text: str) -> str:
    """`text` on one line and harmless: names and messages may come from a peer or a hostile disk.

    Control, bidirectional and invisible characters, line breaks and bytes that are not UTF-8 are
    escaped, so that nothing can move the cursor, hide a part or pass for another line.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is not UTF-8, as the file system's names are read.
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def size_text(count: int) -> str:
    """`count` bytes in the largest unit that leaves at least one: `0 bytes`, `1.5 GiB`."""
    size = float(count)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return count_text(count, "byte") if unit == "bytes" else f"{size:.1f} {unit}"


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """`1 file`, `12 files`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def need_text(files: int, size: int) -> str:
    """What is still to be fetched: `nothing`, or `12 files (3.0 MiB)`."""
    return f"{count_text(files, 'file')} ({size_text(size)})" if files or size else "nothing"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns aligned by the cells a terminal gives them, two spaces apart."""
    every = [head, *rows]
    widths = [max(_cells(row[at]) for row in every) for at in range(len(head))]
    return [
        "  ".join(
            cell + " " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in every
    ]


def _cells(text: str) -> int:
    """Columns a terminal uses for printable `text`."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
