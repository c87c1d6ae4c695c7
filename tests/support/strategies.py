"""What properties are tried on."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from p2psync.core.entry import MAX_FILE_SIZE, Entry, Kind
from p2psync.core.relpath import RelPath, UnsafePathError, parse_relpath
from p2psync.core.version import MAX_STAMP, Dot, Version, join
from tests.support.builders import pair


def examples(times: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """So many times the examples that the profile asks for, so that one that goes deep does."""
    return settings(max_examples=max(1, round(settings().max_examples * times)))


def _is_relpath(text: str) -> bool:
    try:
        parse_relpath(text)
    except UnsafePathError:
        return False
    return True


_letters = st.characters(codec="utf-8", exclude_characters="/\0")
names = st.text(_letters, min_size=1, max_size=12)
relpaths = st.lists(names, min_size=1, max_size=4).map("/".join).filter(_is_relpath).map(RelPath)
authors = st.text(_letters, min_size=1, max_size=64).filter(str.isprintable)
_some_authors = st.sampled_from(["anna", "Büro 2", "x" * 64])
_some_paths = st.sampled_from([RelPath("a.txt"), RelPath("d/é"), RelPath("x" * 255)])

_replicas = st.integers(1, 3) | st.integers(1, (1 << 63) - 1)
_counters = st.integers(1, 3) | st.integers(1, (1 << 63) - 1)
dots = st.builds(Dot, _replicas, _counters)
vectors = st.dictionaries(_replicas, _counters, max_size=4).map(
    lambda pairs: tuple(sorted(pairs.items()))
)
stamps = st.integers(0, 3) | st.integers(0, MAX_STAMP)


@st.composite
def versions(draw: st.DrawFn) -> Version:
    dot = draw(dots)
    origin = draw(st.just(dot) | dots)
    vector = join(join(draw(vectors), (pair(dot),)), (pair(origin),))
    covered = sorted({Dot(*each) for each in vector} - {origin})
    kept = draw(st.lists(st.sampled_from(covered), unique=True)) if covered else []
    author = draw(_some_authors)
    return Version(dot, origin, draw(stamps), vector, author, tuple(sorted(kept)))


_contents = {
    Kind.TOMBSTONE: st.just(b""),
    Kind.DIRECTORY: st.just(b""),
    Kind.SYMLINK: st.sampled_from([b"x", b"../y", b"\xff"]),
    Kind.FILE: st.sampled_from([bytes(32), bytes([1] * 32)]),
}


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(Kind))
    content = draw(_contents[kind])
    version = draw(versions())
    if kind != Kind.FILE:
        return Entry(kind, version, content)
    size = draw(st.integers(0, 2) | st.integers(0, MAX_FILE_SIZE))
    mtime_ns = draw(st.integers(-2, 2) | st.integers(-(1 << 63), (1 << 63) - 1))
    copy_of = draw(st.just("") | _some_paths)
    return Entry(kind, version, content, size, mtime_ns, draw(st.booleans()), copy_of)
