"""Device IDs as people read, copy and mistype them."""

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.ids import (
    DeviceID,
    device_id_of_public_key,
    format_device_id,
    parse_device_id,
    short_device_id,
)
from p2psync.errors import UsageError

ID = DeviceID(bytes(range(32)))
TEXT = format_device_id(ID)
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

devices = st.binary(min_size=32, max_size=32).map(DeviceID)


@given(devices)
def test_what_is_printed_can_be_read(device: DeviceID) -> None:
    assert parse_device_id(format_device_id(device)) == device


@given(devices)
def test_case_dashes_and_spaces_do_not_matter(device: DeviceID) -> None:
    text = format_device_id(device)
    for spelling in (
        text.upper(),
        text.replace("-", ""),
        text.replace("-", " "),
        f" {text}\t"[:-1],
    ):
        assert parse_device_id(spelling) == device


def test_an_id_is_four_groups_of_fourteen() -> None:
    assert [len(group) for group in TEXT.split("-")] == [14, 14, 14, 14]
    assert TEXT.startswith(short_device_id(ID))
    assert len(short_device_id(ID)) == 7


@given(devices, st.integers(0, 55), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_noticed_and_its_group_named(
    device: DeviceID, at: int, wrong: str
) -> None:
    compact = format_device_id(device).replace("-", "")
    if {compact[at], wrong} in ({wrong}, {"a", "7"}):
        return
    with pytest.raises(UsageError, match=f"Group {at // 14 + 1} "):
        parse_device_id(compact[:at] + wrong + compact[at + 1 :])


@given(devices, st.integers(0, 54).filter(lambda at: at % 14 < 12))
def test_two_swapped_neighbours_are_noticed(device: DeviceID, at: int) -> None:
    compact = format_device_id(device).replace("-", "")
    swapped = compact[:at] + compact[at + 1] + compact[at] + compact[at + 2 :]
    if swapped == compact or {compact[at], compact[at + 1]} == {"a", "7"}:
        return
    with pytest.raises(UsageError, match="mistyped"):
        parse_device_id(swapped)


@pytest.mark.parametrize(
    "text", ["", "anna", TEXT[:-1], f"{TEXT}a", TEXT.replace("a", "1"), "é" * 56]
)
def test_what_is_no_id_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="device list"):
        parse_device_id(text)


@given(st.text(max_size=70))
def test_any_text_is_an_id_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert len(parse_device_id(text)) == 32


def test_a_device_is_named_by_the_hash_of_its_key() -> None:
    assert device_id_of_public_key(b"key") == hashlib.sha256(b"key").digest()
