"""How much is under way at a peer."""

import pytest

from p2psync.core.window import FIRST, LARGE_REQUEST_BYTES, MOST, REQUEST_BYTES, Window

MIB = 1 << 20


def _settled(rate: float, *, delay: float = 0.0) -> Window:
    """After many answers of a peer that sends so many bytes a second, each after a delay."""
    window = Window()
    for _ in range(30):
        size, under_way = window.request_bytes, window.requests()
        window = window.after(size, max(under_way * size / rate, delay + size / rate), under_way)
    return window


def test_nothing_is_known_at_first() -> None:
    assert Window().requests() * Window().request_bytes == FIRST
    assert Window().after(0, 1.0, 1) == Window().after(10, 0.0, 1) == Window()


@pytest.mark.parametrize(
    ("rate", "delay", "under_way"),
    [
        (100_000, 0.0, MIB),
        (4 * MIB, 0.0, MIB),
        (12 * MIB, 0.0, 3 * MIB),
        (1000 * MIB, 0.0, MOST),
        (119 * MIB, 0.02, MOST),
    ],
)
def test_a_peer_has_as_much_under_way_as_it_sends_in_a_quarter_of_a_second(
    rate: float, delay: float, under_way: int
) -> None:
    window = _settled(rate, delay=delay)
    assert window.requests() * window.request_bytes == under_way


@pytest.mark.parametrize(
    ("rate", "size"),
    [(12 * MIB, REQUEST_BYTES), (39 * MIB, REQUEST_BYTES), (41 * MIB, LARGE_REQUEST_BYTES)],
)
def test_large_requests_go_to_peers_that_answer_them_within_a_twentieth_of_a_second(
    rate: float, size: int
) -> None:
    assert _settled(rate).request_bytes == size


@pytest.mark.parametrize("rate", [0.0, 100_000, 1000 * MIB])
def test_fewer_may_be_under_way_than_the_peer_is_worth(rate: float) -> None:
    window = Window(rate)
    assert window.requests(2 * MIB) * window.request_bytes <= 2 * MIB
    assert window.requests(1) == 1


def test_a_peer_that_becomes_slow_is_soon_asked_for_less() -> None:
    window = _settled(1000 * MIB)
    for _ in range(20):
        window = window.after(REQUEST_BYTES, window.requests() / 2, window.requests())
    assert window.requests() == 1
