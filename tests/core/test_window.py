"""How many requests are under way at a peer."""

import pytest

from p2psync.core.window import FIRST, MOST, REQUEST_BYTES, Window

MIB = 1 << 20


def _settled(rate: float, *, delay: float = 0.0, under_way: int = FIRST) -> Window:
    """After many answers of a peer that sends so many bytes a second, each after a delay."""
    window = Window()
    for _ in range(30):
        seconds = max(under_way * REQUEST_BYTES / rate, delay + REQUEST_BYTES / rate)
        window = window.after(REQUEST_BYTES, seconds, under_way)
        under_way = window.requests
    return window


def test_nothing_is_known_at_first() -> None:
    assert Window().requests == FIRST
    assert Window().after(0, 1.0, 1) == Window().after(10, 0.0, 1) == Window()


@pytest.mark.parametrize(
    ("rate", "delay", "requests"),
    [
        (100_000, 0.0, 1),
        (4 * MIB, 0.0, 1),
        (12 * MIB, 0.0, 3),
        (1000 * MIB, 0.0, MOST),
        (119 * MIB, 0.02, MOST),
    ],
)
def test_a_peer_has_as_much_under_way_as_it_sends_in_a_quarter_of_a_second(
    rate: float, delay: float, requests: int
) -> None:
    assert _settled(rate, delay=delay).requests == requests


def test_a_peer_that_becomes_slow_is_soon_asked_for_less() -> None:
    window = _settled(1000 * MIB)
    for _ in range(20):
        window = window.after(REQUEST_BYTES, window.requests / 2, window.requests)
    assert window.requests == 1
