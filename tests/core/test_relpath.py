"""Names that stay inside a folder, whatever bytes arrive."""

import os.path
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core import relpath
from p2psync.core.relpath import (
    INTERNAL,
    MAX_COMPONENTS,
    MAX_PATH_BYTES,
    RelPath,
    UnsafePathError,
    ancestors,
    child,
    depth,
    parent,
    parse_relpath,
)
from tests.support.strategies import relpaths

ROOT = "/home/anna/folder"

# What is refused, what the person reads of it, and why.
UNSAFE = [
    ("", "bytes", "nothing is no name"),
    ("/", "component", "the root"),
    ("/etc/passwd", "component", "an absolute path"),
    ("..", "component", "what is above"),
    ("a/../../b", "component", "a way up in the middle"),
    ("a/..", "component", "a way up at the end"),
    (".", "component", "the folder itself"),
    ("a/./b", "component", "a second spelling of a/b"),
    ("a//b", "component", "another one"),
    ("a/", "component", "and another"),
    ("a\0b", "NUL", "what system calls would cut short"),
    ("\udcff", "UTF-8", "a name that is no UTF-8"),
    (INTERNAL, "never shared", "our own directory"),
    (f"{INTERNAL}/trash/x", "never shared", "what lies in it"),
    (f"a/{INTERNAL}", "never shared", "that of a folder inside"),
    (".P2PSync", "never shared", "our own directory where case does not matter"),
    (".p2p\u017fync", "never shared", "and where old letters do not"),
    ("x" * 256, "255 bytes", "a name too long for the disk"),
    ("ü" * 128, "255 bytes", "likewise, in bytes and not in letters"),
    ("/".join("a" * (MAX_COMPONENTS + 1)), "nested", "a path too deep"),
    ("/".join(["x" * 200] * 19), "3800", "a path too long for system calls"),
]


@pytest.mark.parametrize(("text", "said"), [row[:2] for row in UNSAFE], ids=[r[2] for r in UNSAFE])
def test_refused(text: str, said: str) -> None:
    with pytest.raises(UnsafePathError, match=said):
        parse_relpath(text)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "...",
        "..a",
        "a..",
        " ",
        "-rf",
        "a\nb",
        "a\\..\\b",
        "C:",
        "~",
        ".p2psync-old",
        "x" * 255,
        "ü" * 127,
        "/".join("a" * MAX_COMPONENTS),
    ],
)
def test_allowed(text: str) -> None:
    assert parse_relpath(text) == text


@given(st.text(st.sampled_from("./a\0é\udc80 ~\\")) | st.text() | st.binary().map(os.fsdecode))
def test_whatever_arrives_stays_under_the_root_or_is_refused(text: str) -> None:
    try:
        path = parse_relpath(text)
    except UnsafePathError:
        return
    whole = os.path.normpath(os.path.join(ROOT, path))
    assert whole.startswith(f"{ROOT}/")
    assert whole == f"{ROOT}/{path}", "one path has one spelling"
    assert PurePosixPath(ROOT, path).is_relative_to(ROOT)
    assert len(path.encode()) <= MAX_PATH_BYTES


@given(relpaths)
def test_ancestors_are_the_parents_from_the_top(path: RelPath) -> None:
    above = []
    at = parent(path)
    while at is not None:
        above.append(at)
        at = parent(at)
    assert ancestors(path) == above[::-1]
    assert depth(path) == len(above)


@given(relpaths, st.text())
def test_a_child_is_below_its_directory_or_refused(directory: RelPath, name: str) -> None:
    try:
        path = child(directory, name)
    except UnsafePathError:
        return
    assert directory in ancestors(path)


def test_a_child_of_the_top_is_its_name() -> None:
    assert child(None, "a") == "a"
    with pytest.raises(UnsafePathError):
        child(None, INTERNAL)


@given(st.from_regex(r"[a-zA-Z0-9_./-]{1,12}", fullmatch=True) | st.text())
def test_plain_paths_are_judged_as_all_others(text: str) -> None:
    """Those that are checked in one look would pass the long way too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relpath, "_PLAIN", re.compile(r"(?!)"))
        try:
            expected = parse_relpath(text)
        except UnsafePathError:
            expected = None
    if expected is None:
        with pytest.raises(UnsafePathError):
            parse_relpath(text)
    else:
        assert parse_relpath(text) == expected
