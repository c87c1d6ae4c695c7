import contextlib

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.ids import device_id_of_public_key
from p2psync.net.beacon import (
    MAX_DATAGRAM,
    Beacon,
    BeaconError,
    RateLimit,
    Timetable,
    decode_beacon,
    encode_beacon,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
BEACON = Beacon(PUBLIC, b"greeting", port=22000, pairing_port=22001, nameplate=7)
DATAGRAM = encode_beacon(BEACON, KEY.sign)


def test_a_beacon_reads_back_as_it_was_written_and_is_small():
    assert decode_beacon(DATAGRAM) == BEACON
    assert len(DATAGRAM) < 150


def test_the_bytes_of_version_1_stay_readable():
    assert DATAGRAM.hex() == GOLDEN


def test_the_device_is_the_hash_of_the_public_key_as_certificates_hold_it():
    der = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert BEACON.device == device_id_of_public_key(der)


def test_a_change_of_any_byte_is_noticed():
    for at in range(len(DATAGRAM)):
        changed = DATAGRAM[:at] + bytes([DATAGRAM[at] ^ 1]) + DATAGRAM[at + 1 :]
        with pytest.raises(BeaconError):
            decode_beacon(changed)


def test_the_signature_of_another_device_is_refused():
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    with pytest.raises(BeaconError, match="signature"):
        decode_beacon(encode_beacon(BEACON, other.sign))


def test_a_signature_given_for_another_purpose_is_refused():
    with pytest.raises(BeaconError, match="signature"):
        decode_beacon(encode_beacon(BEACON, lambda data: KEY.sign(data.partition(b"\x00")[2])))


def test_a_later_version_may_append_fields():
    longer = msgspec.msgpack.encode([*msgspec.structs.astuple(BEACON), "later"])
    datagram = DATAGRAM[:8] + KEY.sign(b"p2psync beacon v1\x00" + longer) + longer
    assert decode_beacon(datagram) == BEACON


def test_too_long_a_datagram_is_not_looked_at():
    with pytest.raises(BeaconError, match="long"):
        decode_beacon(DATAGRAM.ljust(MAX_DATAGRAM + 1, b"\x00"))


@given(st.binary(max_size=600) | st.binary(max_size=200).map(lambda data: DATAGRAM[:72] + data))
def test_whatever_bytes_come_give_a_beacon_or_the_one_error(datagram: bytes):
    with contextlib.suppress(BeaconError):
        assert decode_beacon(datagram) == BEACON


def test_a_source_is_heard_ten_times_a_second_after_a_burst_of_twenty():
    limit = RateLimit()
    assert [limit.allows("a", 100.0) for _ in range(21)] == [True] * 20 + [False]
    assert not limit.allows("a", 100.05)
    assert limit.allows("a", 100.15)
    assert limit.allows("b", 100.15)


def test_all_sources_together_are_limited_too():
    limit = RateLimit(total_per_second=50)
    heard = sum(limit.allows(f"source {number}", 100.0) for number in range(1000))
    assert heard == 100


def test_sources_that_were_heard_long_ago_are_forgotten():
    limit = RateLimit(per_second=1, max_sources=2)
    assert [limit.allows("a", 1.0) for _ in range(3)] == [True, True, False]
    limit.allows("b", 1.0)
    limit.allows("c", 1.0)
    assert limit.allows("a", 1.0)


def times(table: Timetable, until: float) -> list[float]:
    sent = []
    while (due := table.due) < until:
        table.sent(due)
        sent.append(due)
    return sent


def test_beacons_are_due_at_0_1_3_and_7_seconds_and_then_every_half_minute():
    assert times(Timetable(100.0), 200.0) == [100, 101, 103, 107, 137, 167, 197]


def test_a_newcomer_is_answered_at_once_and_without_changing_what_was_planned():
    table = Timetable(100.0)
    times(table, 108.0)
    table.hurry()
    assert table.due <= 120.0
    table.sent(120.0)
    assert table.due == 150.0


def test_many_newcomers_at_once_are_answered_by_one_beacon():
    table = Timetable(100.0)
    table.sent(100.0)
    for _ in range(50):
        table.hurry()
    assert table.due == pytest.approx(100.2)
    table.sent(table.due)
    assert table.due == 101.0


def test_a_restart_does_not_make_two_beacons_within_a_fifth_of_a_second():
    table = Timetable(100.0)
    table.sent(100.0)
    table.restart(100.01)
    assert table.due == pytest.approx(100.2)


GOLDEN = (
    "70327073796e63019a2229897df468b8ec43461603a4aa01b8b1a92bea67583e855349ca75375673"
    "9f63ff5f608d4dba6b4f90325fde20d115c5d22df4d9db2552afa98d9c6ef60395c4208320a51977"
    "d8c38ca8a4927c670df5821e449761945e15e9efb26a1509d230eac4086772656574696e67cd55f0"
    "cd55f107"
)
