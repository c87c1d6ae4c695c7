"""How two versions of a file differ, whatever they hold."""

import os
from pathlib import Path

import pytest

from p2psync.cli import difference
from p2psync.cli.difference import Difference, compare
from p2psync.errors import P2psyncError


def compared(tmp_path: Path, original: bytes | None, copy: bytes | None) -> Difference:
    paths = []
    for name, content in (("original", original), ("copy", copy)):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        paths.append(path)
    return compare(*paths, names=("S/a", "S/b"))


def test_text_is_a_unified_diff(tmp_path: Path) -> None:
    found = compared(tmp_path, b"one\ntwo\n", "one\nzwö\n".encode())
    assert found.is_text
    assert found.sizes == (8, 9)
    assert "".join(found.lines) == "--- S/a\n+++ S/b\n@@ -1,2 +1,2 @@\n one\n-two\n+zwö\n"
    assert found.as_json()["diff"] == "".join(found.lines)


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    found = compared(tmp_path, b"a\x0cb\r\nc\n", b"a\x0cb\r\nd\n")
    assert "".join(found.lines[3:]) == " a\x0cb\r\n-c\n+d\n"


def test_a_missing_line_end_is_told_as_patch_expects(tmp_path: Path) -> None:
    found = compared(tmp_path, b"a", b"a\n")
    assert found.lines[-2:] == ("-a\n\\ No newline at end of file\n", "+a\n")


def test_a_missing_file_counts_as_empty(tmp_path: Path) -> None:
    found = compared(tmp_path, None, b"new\n")
    assert found.sizes == (0, 4)
    assert found.lines[-1] == "+new\n"


@pytest.mark.parametrize("content", [b"a\0b", b"\xff\xfe"])
def test_what_is_no_text_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    found = compared(tmp_path, b"text\n", content)
    assert found.lines == (f"Binary files S/a (5 bytes) and S/b ({len(content)} bytes) differ.\n",)
    assert found.as_json()["binary"]
    assert found.as_json()["diff"] is None


def test_a_very_long_text_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "_MAX_TEXT", 4)
    found = compared(tmp_path, b"1234", b"12345")
    assert found.lines[0].endswith("(5 bytes) differ in more than can be shown.\n")


def test_links_are_compared_by_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "original").symlink_to("a")
    (tmp_path / "copy").symlink_to("b\x1b")
    found = compared(tmp_path, None, None)
    assert found.lines[-2:] == ("-symlink to a\n", "+symlink to b\\x1b\n")


def test_what_took_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "copy")
    with pytest.raises(P2psyncError, match="is not a file any more"):
        compared(tmp_path, b"a", None)
    (tmp_path / "copy").unlink()
    (tmp_path / "copy").mkdir()
    with pytest.raises(P2psyncError, match="is not a file any more"):
        compared(tmp_path, b"a", None)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(P2psyncError, match="cannot be read: Not a directory"):
        compared(tmp_path / "file", None, None)
