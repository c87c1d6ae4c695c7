import base64
import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.errors import UsageError
from p2psync.protocol.pairing_code import (
    FleetKey,
    PairingCode,
    PairingWindow,
    WindowState,
    new_code,
    new_fleet_key,
    parse_code,
    parse_fleet_key,
)
from p2psync.protocol.words import WORDS

CODE = PairingCode(4, ("acorn", "velvet", "mango"))
KEY = FleetKey(bytes(range(32)))


def _bytes_of(*numbers: int) -> Callable[[int], bytes]:
    """Randomness that gives these 16-bit numbers."""
    left = iter(numbers)
    return lambda size: next(left).to_bytes(size)


# --- codes --------------------------------------------------------------------------------------


def test_a_new_code_reads_back() -> None:
    for _ in range(50):
        code = new_code(os.urandom)
        assert parse_code(str(code)) == code
        assert 1 <= code.nameplate <= 99


def test_a_code_is_drawn_from_the_randomness_it_is_given() -> None:
    code = new_code(_bytes_of(3, 0, 1295, 1296))
    assert code == PairingCode(4, (WORDS[0], WORDS[-1], WORDS[0]))


def test_draws_are_even() -> None:
    """65535 and others past the last whole multiple would favour the first words: drawn again."""
    assert new_code(_bytes_of(65535, 65439, 0, 65535, 64800, 5, 6, 7)) == PairingCode(
        1, (WORDS[5], WORDS[6], WORDS[7])
    )
    numbers = itertools.cycle(range(65536))
    drawn = Counter(
        new_code(lambda size: next(numbers).to_bytes(size)).nameplate for _ in range(99 * 5)
    )
    assert set(drawn.values()) == {5}


@pytest.mark.parametrize(
    "text",
    [
        "4-acorn-velvet-mango",
        "4 acorn velvet mango",
        " 4 – Acorn – VELVET—mango.\n",
        "04_acorn_velvet_mango",
        "4,acorn,velvet,mango",
    ],
)
def test_a_code_is_read_however_it_is_typed(text: str) -> None:
    assert parse_code(text) == CODE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "starts with a number"),
        ("acorn-velvet-mango", "starts with a number"),
        ("0-acorn-velvet-mango", "starts with a number"),
        ("100-acorn-velvet-mango", "starts with a number"),
        ("٤-acorn-velvet-mango", "starts with a number"),
        ("4-acorn-velvet", "three words.*has 2"),
        ("4-acorn-velvet-mango-tuna", "has 4"),
        ("4-acorn-velvt-mango", "Is it “velvet”"),
        ("4-acorn-qqqqq-mango", "not a word of pairing codes"),
        ("4-" + "x" * 10_000, "has 1"),
    ],
)
def test_a_mistyped_code_is_explained(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_code(text)


@settings(max_examples=30)
@given(st.text(alphabet="aé٤4-_ \n", max_size=60))
def test_any_text_is_a_code_or_a_usage_error(text: str) -> None:
    try:
        parse_code(text)
    except UsageError as error:
        assert len(str(error)) < 300


def test_secrets_do_not_show_in_repr() -> None:
    assert "acorn" not in repr(CODE)
    assert "\\x" not in repr(KEY)
    assert repr(KEY) == "FleetKey()"


# --- fleet keys ---------------------------------------------------------------------------------


def test_a_new_key_reads_back_and_has_256_bits() -> None:
    key = new_fleet_key(os.urandom)
    assert len(key.key) == 32
    assert parse_fleet_key(str(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        bytes(range(32)).hex(),
        bytes(range(32)).hex(" ").upper() + "\n",
        base64.b32encode(bytes(range(32))).decode(),
        base64.b32encode(bytes(range(32))).decode().rstrip("=").lower(),
        "-".join(str(KEY)[at : at + 4] for at in range(0, 52, 4)),
    ],
)
def test_a_key_is_read_in_hex_and_in_base32(text: str) -> None:
    assert parse_fleet_key(text) == KEY


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "too short"),
        ("correct horse battery staple", "too short|base32"),
        ("00112233445566778899aabbccddee", "too short"),
        ("a" * 64, "not random"),
        ("MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG0+/w==", "base32 or in hex"),
        (bytes(range(256)).hex() + "00", "longer than"),
    ],
)
def test_what_is_no_key_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_fleet_key(text)


@given(st.text(alphabet="aB27f0189=é- \n", max_size=100))
def test_any_text_is_a_key_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert len(parse_fleet_key(text).key) >= 16


def test_a_code_and_a_key_never_give_the_same_password() -> None:
    """The words of a code as a key's bytes are another secret; so is another nameplate."""
    as_key = FleetKey(str(CODE).encode())
    other = PairingCode(5, CODE.words)
    assert len({CODE.password, as_key.password, other.password, KEY.password}) == 4


# --- the window ---------------------------------------------------------------------------------


def test_a_window_is_open_for_five_minutes() -> None:
    window = PairingWindow(1000.0)
    assert window.state(1299.9) is WindowState.OPEN
    assert window.remaining(1299.0) == 1.0
    assert window.state(1300.0) is WindowState.EXPIRED
    assert window.remaining(2000.0) == 0.0


def test_a_window_burns_at_the_third_failure() -> None:
    window = PairingWindow(0.0)
    window.attempt_failed()
    window.attempt_failed()
    assert window.state(1.0) is WindowState.OPEN
    assert window.failures_left == 1
    window.attempt_failed()
    assert window.state(1.0) is WindowState.BURNED
    assert window.state(1e9) is WindowState.BURNED


def test_a_window_is_good_for_one_device() -> None:
    window = PairingWindow(0.0)
    window.attempt_succeeded()
    assert window.state(1.0) is WindowState.USED
