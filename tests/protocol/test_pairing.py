import hashlib
import itertools
from collections.abc import Callable, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.errors import P2psyncError, RefusedError
from p2psync.protocol.pairing import (
    MAX_PAYLOAD,
    HostPairing,
    JoinerPairing,
    PairedPeer,
    PairingProtocolError,
    PairingRefusedError,
    Refusal,
)
from p2psync.protocol.pairing_code import FleetKey, PairingCode, PairingSecret

CODE = PairingCode(4, ("acorn", "velvet", "mango"))
WRONG = PairingCode(4, ("acorn", "velvet", "tuna"))
JOINER, HOST = b"certificate of the joiner", b"certificate of the host"


def _randomness(seed: str) -> Callable[[int], bytes]:
    numbers = itertools.count()
    return lambda size: hashlib.shake_256(f"{seed} {next(numbers)}".encode()).digest(size)


def _host(secret: PairingSecret = CODE, *, certificate: bytes = HOST) -> HostPairing:
    return HostPairing(
        secret, certificate=certificate, payload=b"of the host", random_bytes=_randomness("host")
    )


def _joiner(secret: PairingSecret = CODE, *, certificate: bytes = JOINER) -> JoinerPairing:
    return JoinerPairing(
        secret,
        certificate=certificate,
        payload=b"of the joiner",
        random_bytes=_randomness("joiner"),
    )


def _frame(message: Mapping[str, object]) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4) + body


def _hello(host: HostPairing, joiner: JoinerPairing) -> None:
    """Up to the point where the joiner's confirmation is ready to go."""
    host.receive_data(joiner.data_to_send())
    joiner.receive_data(host.data_to_send())


def _pair(host: HostPairing, joiner: JoinerPairing) -> list[bytes]:
    """All of it; gives what went over the wire."""
    said = []
    for _ in range(8):
        said.append(joiner.data_to_send())
        host.receive_data(said[-1])
        if host.peer is not None:
            host.accept()
        said.append(host.data_to_send())
        joiner.receive_data(said[-1])
        if joiner.peer is not None:
            return said
    raise AssertionError("they never finish")


# --- the right secret ---------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [CODE, FleetKey(bytes(range(16)))])
def test_two_devices_that_share_a_secret_pair(secret: PairingSecret) -> None:
    host, joiner = _host(secret), _joiner(secret)
    _pair(host, joiner)
    assert host.peer == PairedPeer(JOINER, b"of the joiner")
    assert joiner.peer == PairedPeer(HOST, b"of the host")
    assert host.confirmed
    assert not host.cost_a_guess


def test_bytes_may_come_one_by_one() -> None:
    host, joiner = _host(), _joiner()
    for _ in range(3):
        for byte in joiner.data_to_send():
            host.receive_data(bytes([byte]))
        if host.peer is not None:
            host.accept()
        for byte in host.data_to_send():
            joiner.receive_data(bytes([byte]))
    assert joiner.peer is not None


def test_neither_payloads_nor_words_are_seen_on_the_wire() -> None:
    said = b"".join(_pair(_host(), _joiner()))
    assert b"certificate of the host" in said
    for secret in [b"of the host\x00", b"acorn", b"velvet", b"mango"]:
        assert secret not in said
    assert said.count(b"of the host") == said.count(HOST) == 1
    assert said.count(b"of the joiner") == said.count(JOINER) == 1


def test_the_host_says_nothing_of_itself_before_the_joiner_has_proved_itself() -> None:
    host, joiner = _host(), _joiner()
    _hello(host, joiner)
    assert host.data_to_send() == b""
    assert host.cost_a_guess


def test_the_joiner_is_in_only_when_the_host_has_accepted() -> None:
    host, joiner = _host(), _joiner()
    _hello(host, joiner)
    host.receive_data(joiner.data_to_send())
    joiner.receive_data(host.data_to_send())
    host.receive_data(joiner.data_to_send())
    assert host.peer is not None
    assert host.data_to_send() == b""
    assert joiner.peer is None


def test_a_host_can_turn_a_peer_down_that_knows_the_secret() -> None:
    host, joiner = _host(), _joiner()
    _hello(host, joiner)
    host.receive_data(joiner.data_to_send())
    joiner.receive_data(host.data_to_send())
    host.receive_data(joiner.data_to_send())
    host.refuse(Refusal.DECLINED)
    with pytest.raises(PairingRefusedError, match="did not let this one in"):
        joiner.receive_data(host.data_to_send())
    with pytest.raises(RuntimeError):
        host.accept()


def test_a_payload_of_the_largest_size_goes_through() -> None:
    large = b"x" * MAX_PAYLOAD
    joiner = JoinerPairing(
        CODE, certificate=JOINER, payload=large, random_bytes=_randomness("joiner")
    )
    host = HostPairing(CODE, certificate=HOST, payload=large, random_bytes=_randomness("host"))
    _pair(host, joiner)
    assert host.peer == PairedPeer(JOINER, large)
    with pytest.raises(ValueError, match="too big"):
        HostPairing(CODE, certificate=HOST, payload=large + b"x", random_bytes=_randomness("h"))


# --- the wrong secret ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret", [WRONG, PairingCode(5, CODE.words), FleetKey(CODE.password), FleetKey(bytes(16))]
)
def test_a_wrong_secret_is_refused_on_both_sides(secret: PairingSecret) -> None:
    host, joiner = _host(), _joiner(secret)
    _hello(host, joiner)
    with pytest.raises(PairingRefusedError, match="wrong code or key") as at_host:
        host.receive_data(joiner.data_to_send())
    assert isinstance(at_host.value, RefusedError)
    assert host.cost_a_guess
    assert host.peer is None
    with pytest.raises(PairingRefusedError, match="The code or key is wrong"):
        joiner.receive_data(host.data_to_send())


def test_a_refused_joiner_has_no_second_try_on_the_same_connection() -> None:
    host, joiner = _host(), _joiner(WRONG)
    _hello(host, joiner)
    with pytest.raises(PairingRefusedError):
        host.receive_data(joiner.data_to_send())
    host.data_to_send()
    with pytest.raises(PairingProtocolError):
        host.receive_data(_joiner().data_to_send())
    assert host.data_to_send() == b""


def test_a_false_host_that_takes_every_joiner_is_noticed() -> None:
    """It cannot make its own tag: what it sends instead is refused and nothing is told to it."""
    host, joiner = _host(WRONG), _joiner()
    _hello(host, joiner)
    joiner.data_to_send()
    claim = {"type": "host confirm", "tag": bytes(32), "sealed": bytes(40)}
    with pytest.raises(PairingRefusedError, match="does not know the code"):
        joiner.receive_data(_frame(claim))
    assert joiner.data_to_send() == b""


def test_hanging_up_after_the_hosts_element_costs_a_guess() -> None:
    host, joiner = _host(), _joiner()
    assert not host.cost_a_guess
    host.receive_data(joiner.data_to_send())
    with pytest.raises(PairingProtocolError, match="hung up"):
        host.receive_eof()
    assert host.cost_a_guess


def test_hanging_up_before_it_costs_nothing() -> None:
    host = _host()
    host.receive_data(_joiner().data_to_send()[:10])
    with pytest.raises(PairingProtocolError):
        host.receive_eof()
    assert not host.cost_a_guess


def test_a_joiner_that_is_hung_up_on_says_so() -> None:
    with pytest.raises(PairingProtocolError, match="hung up"):
        _joiner().receive_eof()


@pytest.mark.parametrize("reason", list(Refusal))
def test_every_refusal_is_a_sentence_with_a_next_step(reason: Refusal) -> None:
    host, joiner = _host(), _joiner()
    host.refuse(reason)
    with pytest.raises(PairingRefusedError) as refused:
        joiner.receive_data(host.data_to_send())
    assert str(refused.value) == reason.sentence
    assert reason.sentence.count(".") >= 2


# --- attacks on the exchange --------------------------------------------------------------------


def test_a_changed_certificate_breaks_the_pairing_either_way() -> None:
    for old, new in [(JOINER, b"certificate of a robber"), (HOST, b"certificate of thief")]:
        host, joiner = _host(), _joiner()
        swap = (b"\xc4" + bytes([len(old)]) + old, b"\xc4" + bytes([len(new)]) + new)

        def tampered(frame: bytes, swap: tuple[bytes, bytes] = swap) -> bytes:
            body = frame[4:].replace(*swap)
            return len(body).to_bytes(4) + body

        host.receive_data(tampered(joiner.data_to_send()))
        joiner.receive_data(tampered(host.data_to_send()))
        with pytest.raises(PairingRefusedError):
            host.receive_data(joiner.data_to_send())


def test_messages_sent_back_to_who_said_them_are_not_taken() -> None:
    joiner = _joiner()
    with pytest.raises(PairingProtocolError):
        joiner.receive_data(joiner.data_to_send())
    host = _host()
    host.receive_data(_joiner().data_to_send())
    with pytest.raises(PairingProtocolError):
        host.receive_data(host.data_to_send())
    assert host.cost_a_guess


def test_the_hosts_own_element_sent_back_as_the_joiners_is_refused() -> None:
    host = _host()
    host.receive_data(_joiner().data_to_send())
    element = msgspec.msgpack.decode(host.data_to_send()[4:])["element"]
    for spelled in [element, b"A" + element[1:]]:
        again = _host()
        again.receive_data(_joiner().data_to_send())
        again.data_to_send()
        message = {"type": "joiner confirm", "element": spelled, "tag": bytes(32)}
        with pytest.raises(PairingProtocolError):
            again.receive_data(_frame(message))


@pytest.mark.parametrize(
    "y",
    [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255 - 1, 2],
    ids=["order 4", "neutral", "order 2", "zero again", "neutral again", "too big", "off curve"],
)
@pytest.mark.parametrize("sign", [0, 1])
def test_elements_that_would_force_the_key_are_refused(y: int, sign: int) -> None:
    host = _host()
    host.receive_data(_joiner().data_to_send())
    element = b"A" + (y | sign << 255).to_bytes(32, "little")
    message = {"type": "joiner confirm", "element": element, "tag": bytes(32)}
    with pytest.raises(PairingProtocolError):
        host.receive_data(_frame(message))


def test_a_device_does_not_pair_with_itself() -> None:
    host, joiner = _host(certificate=JOINER), _joiner()
    with pytest.raises(PairingRefusedError, match="identity of this one"):
        host.receive_data(joiner.data_to_send())
    with pytest.raises(PairingRefusedError, match="identity of this one"):
        joiner.receive_data(host.data_to_send())
    assert not host.cost_a_guess


def test_another_version_is_told_to_update() -> None:
    host = _host()
    with pytest.raises(PairingRefusedError, match="Update the older"):
        host.receive_data(_frame({"type": "joiner hello", "version": 2, "certificate": JOINER}))
    joiner = _joiner()
    with pytest.raises(PairingRefusedError, match="Update the older"):
        joiner.receive_data(host.data_to_send())


def test_what_was_said_in_one_pairing_is_worth_nothing_in_another() -> None:
    host, joiner = _host(), _joiner()
    said = _pair(host, joiner)
    other = HostPairing(
        CODE, certificate=HOST, payload=b"of the host", random_bytes=_randomness("another")
    )
    other.receive_data(said[0])
    with pytest.raises(PairingRefusedError):
        other.receive_data(said[2])


@pytest.mark.parametrize("at", [-1, 40, 100])
@pytest.mark.parametrize("number", range(6))
def test_a_flipped_bit_anywhere_stops_the_pairing(number: int, at: int) -> None:
    host, joiner = _host(), _joiner()
    turns = itertools.cycle([(joiner, host), (host, joiner)])
    with pytest.raises(P2psyncError):
        for turn, (speaker, hearer) in zip(range(6), turns, strict=False):
            if host.peer is not None and speaker is host:
                host.accept()
            said = bytearray(speaker.data_to_send())
            if turn == number:
                said[max(at, -len(said)) if at < 0 else min(at, len(said) - 1)] ^= 1
            hearer.receive_data(bytes(said))
    assert joiner.peer is None


def test_messages_out_of_order_are_refused() -> None:
    done = _frame({"type": "host done", "tag": bytes(32)})
    confirm = _frame({"type": "host confirm", "tag": bytes(32), "sealed": bytes(16)})
    for early in [done, confirm]:
        with pytest.raises(PairingProtocolError):
            _joiner().receive_data(early)
    payload = _frame({"type": "joiner payload", "sealed": bytes(16)})
    prove = _frame({"type": "joiner confirm", "element": b"A" + bytes(32), "tag": bytes(32)})
    for early in [payload, prove]:
        with pytest.raises(PairingProtocolError):
            _host().receive_data(early)
    host, joiner = _host(), _joiner()
    hello = joiner.data_to_send()
    host.receive_data(hello)
    with pytest.raises(PairingProtocolError):
        host.receive_data(hello)


def test_a_stranger_cannot_make_the_host_wait_for_much() -> None:
    with pytest.raises(PairingProtocolError):
        _host().receive_data((4097).to_bytes(4))
    with pytest.raises(PairingProtocolError):
        _joiner().receive_data((1 << 31).to_bytes(4))


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    for pairing in (_host(), _joiner()):
        for sent in (data, len(data).to_bytes(4) + data):
            try:
                pairing.receive_data(sent)
            except PairingProtocolError:
                break


_values = st.one_of(
    st.binary(max_size=40), st.integers(-(2**63), 2**64 - 1), st.text(max_size=9), st.none()
)


@settings(max_examples=50)
@given(
    st.sampled_from(["joiner hello", "joiner confirm", "host hello", "host confirm", "x"]),
    st.dictionaries(
        st.sampled_from(["version", "certificate", "element", "tag", "sealed", "reason", "more"]),
        _values,
    ),
)
def test_any_fields_are_a_message_or_an_error_for_people(
    kind: str, fields: dict[str, object]
) -> None:
    for pairing in (_host(), _joiner()):
        try:
            pairing.receive_data(_frame({"type": kind, **fields}))
        except (PairingProtocolError, PairingRefusedError):
            continue


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(PairingProtocolError):
        _host().receive_data((4000).to_bytes(4) + b"\x91" * 4000)
