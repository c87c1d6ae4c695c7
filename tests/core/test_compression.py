from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.compression import (
    HOPED_SPEED,
    LEAST_KNOWN,
    LEAST_SEND,
    MARGIN,
    WINDOW_BYTES,
    WINDOW_S,
    LinkRate,
    Speed,
    may_pay,
    pays,
)

RATES = st.floats(1e2, 1e11)
FASTER = st.floats(1e-3, 1e3)
"""How much faster compressing is than the link."""
RATIOS = st.floats(0, 1.1)


@given(RATES, FASTER, RATIOS)
def test_nothing_is_compressed_that_would_arrive_later_for_it(
    rate: float, faster: float, ratio: float
) -> None:
    speed = rate * faster
    if pays(rate, speed, ratio):
        assert 1 / speed + ratio / rate < 1 / rate


@given(RATES, FASTER, RATIOS)
def test_what_arrives_much_earlier_is_compressed(rate: float, faster: float, ratio: float) -> None:
    speed = rate * faster
    if 1 / speed + ratio / rate < 0.999 / rate / MARGIN:
        assert pays(rate, speed, ratio)


@given(RATES, FASTER, RATIOS, st.floats(0.001, 0.999))
def test_what_pays_on_a_link_pays_on_a_slower_one_with_a_faster_processor_and_a_better_ratio(
    rate: float, faster: float, ratio: float, share: float
) -> None:
    speed = rate * faster
    if pays(rate, speed, ratio):
        assert pays(rate * share, speed, ratio)
        assert pays(rate, speed / share, ratio)
        assert pays(rate, speed, ratio * share)


@given(RATES, FASTER)
def test_what_hardly_shrinks_is_never_compressed(rate: float, faster: float) -> None:
    assert not pays(rate, rate * faster, 0.9)


def test_a_fast_link_is_not_even_tried() -> None:
    assert may_pay(12.5e6)
    assert not may_pay(HOPED_SPEED)
    assert not may_pay(125e6)


def test_the_rate_is_that_of_the_large_sends_of_late() -> None:
    rate = LinkRate()
    assert rate.value(0.0) is None
    rate.add(LEAST_KNOWN - 1, 1.0, 0.0)
    assert rate.value(0.0) is None, "too little to tell"
    rate.add(LEAST_SEND - 1, 1.0, 0.0)
    assert rate.value(0.0) is None, "such a send tells nothing"
    rate.add(LEAST_KNOWN + 1, 1.0, 5.0)
    assert rate.value(5.0) == LEAST_KNOWN
    assert rate.value(WINDOW_S) == LEAST_KNOWN + 1, "the first is forgotten"
    assert rate.value(5.0 + WINDOW_S) is None


def test_a_link_that_takes_no_time_has_no_rate() -> None:
    rate = LinkRate()
    rate.add(LEAST_KNOWN, 0.0, 1.0)
    assert rate.value(1.0) is None


def test_a_link_that_becomes_slow_is_known_to_be_so_after_one_window() -> None:
    rate = LinkRate()
    for _ in range(1000):
        rate.add(LEAST_KNOWN, 0.001, 1.0)
    for _ in range(WINDOW_BYTES // LEAST_KNOWN):
        rate.add(LEAST_KNOWN, 1.0, 1.0)
    assert rate.value(1.0) == LEAST_KNOWN


def test_the_speed_is_hoped_for_until_it_was_measured() -> None:
    assert Speed().value == HOPED_SPEED
    assert Speed().after(1000, 0.0).value == HOPED_SPEED
    assert Speed().after(1000, 2.0).value == 500


def test_a_speed_of_long_ago_counts_little() -> None:
    speed = Speed().after(1000, 1000.0)
    for _ in range(100):
        speed = speed.after(1000, 1.0)
    assert 900 < speed.value < 1000
