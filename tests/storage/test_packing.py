import msgspec
import pytest
from hypothesis import given

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.version import Dot, Version
from p2psync.storage.packing import (
    content_key,
    pack,
    pack_entry,
    unpack_entry,
    unpack_fingerprint,
)
from tests.storage.builders import content, entries, file, fingerprints


@given(entries)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert unpack_entry(pack_entry(entry)) == entry


@given(fingerprints)
def test_a_fingerprint_comes_back_as_it_was(fingerprint: Fingerprint) -> None:
    assert unpack_fingerprint(pack(fingerprint)) == fingerprint


def test_an_entry_comes_back_with_the_types_it_had() -> None:
    entry = unpack_entry(pack_entry(file("one")))
    assert isinstance(entry.kind, Kind)
    assert isinstance(entry.version.dot, Dot)
    assert isinstance(entry.version.origin, Dot)


def test_what_an_entry_repeats_is_stored_once() -> None:
    first = file("one", replica=1 << 62)
    version = Version(
        dot=Dot(1 << 62, 2),
        origin=first.version.dot,
        stamp=first.version.stamp + 1,
        vector=((1 << 62, 2),),
        author=first.version.author,
    )
    later = msgspec.structs.replace(first, version=version)
    assert len(pack_entry(first)) + 12 <= len(pack_entry(later))


def test_entries_stored_by_released_versions_stay_readable() -> None:
    stored = bytes.fromhex(
        "9b0292cf40000000000000000792cf400000000000000006cd07d092920103"
        "92cf400000000000000007a4616e6e61c403010203cd1000cd03e8c3a162"
    )
    assert unpack_entry(stored) == Entry(
        Kind.FILE,
        Version(
            dot=Dot(1 << 62, 7),
            origin=Dot(1 << 62, 6),
            stamp=2000,
            vector=((1, 3), (1 << 62, 7)),
            author="anna",
        ),
        content=b"\1\2\3",
        size=4096,
        mtime_ns=1000,
        executable=True,
        copy_of="b",
    )


def test_an_entry_that_keeps_others_comes_back_with_them() -> None:
    first = file("one")
    kept = (Dot(1, 3), Dot(2, 1))
    version = msgspec.structs.replace(first.version, vector=((1, 3), (2, 1), (7, 1)), kept=kept)
    entry = unpack_entry(pack_entry(msgspec.structs.replace(first, version=version)))
    assert entry.version.kept == kept
    assert all(isinstance(dot, Dot) for dot in entry.version.kept)


@pytest.mark.parametrize("garbage", [b"", b"\x90", b"\xc1", pack_entry(file("one"))[:-1]])
def test_what_is_no_entry_is_refused(garbage: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack_entry(garbage)


def test_content_keys_fit_a_column_and_tell_contents_apart() -> None:
    assert 0 <= content_key(b"\xff" * 32) < 1 << 63
    assert content_key(content("one")) != content_key(content("two"))
