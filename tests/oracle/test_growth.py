"""A leak is found, and what is none is not called one."""

import random
from dataclasses import replace

import pytest

from tests.oracle.growth import ALLOWED_BYTES, LEAST_READINGS, Reading, fit, judge, warm

MIB = 1 << 20


def hour(
    *, rate: float = 0.0, noise: float = 0.3 * MIB, warm_up: float = 12 * MIB, count: int = 360
) -> list[Reading]:
    """Readings over an hour: memory that first grows by `warm_up`, then by `rate` a second."""
    chance = random.Random(7)
    step = 3600 / count
    return [
        Reading(
            at=at,
            memory=round(
                60 * MIB + min(at / 300, 1) * warm_up + at * rate + chance.gauss(0, noise)
            ),
            descriptors=30,
            threads=9,
            tasks=25,
        )
        for at in (number * step for number in range(count))
    ]


def test_the_slope_and_its_error_are_those_of_least_squares() -> None:
    exact = fit([(0, 5), (2, 9), (4, 13)])
    assert exact.per_second == pytest.approx(2)
    assert exact.error == pytest.approx(0)
    # By hand: the mean of x is 1, of y 1; slope 3/2, residues 1/4 + 1 + 1/4 over one degree, by 2.
    bent = fit([(0, 0), (1, 0), (2, 3)])
    assert bent.per_second == pytest.approx(1.5)
    assert bent.error == pytest.approx((1.5 / 2) ** 0.5)


def test_what_grows_only_while_it_warms_up_is_flat() -> None:
    verdict = judge(hour())
    assert verdict.is_flat, str(verdict)
    assert str(verdict) == "flat"
    assert verdict.seconds == pytest.approx(0.8 * 3600, abs=20)


@pytest.mark.parametrize("noise", [0.0, 0.3 * MIB, 2.0 * MIB])
def test_a_leak_of_seven_mebibytes_an_hour_is_found_in_any_noise(noise: float) -> None:
    verdict = judge(hour(rate=7 * MIB / 3600, noise=noise))
    assert not verdict.is_flat
    assert "memory grew by 5." in str(verdict)


def test_of_a_life_of_minutes_the_counts_are_judged_and_not_the_memory() -> None:
    short = hour(rate=1 * MIB / 60)[:60]
    assert not judge(short).faults
    assert str(judge(short)) == "too short to tell"
    leaking = [*short[:-10], *(replace(one, threads=10) for one in short[-10:])]
    assert str(judge(leaking)) == "threads went from 9 to 10"


def test_memory_that_is_given_back_is_no_leak() -> None:
    assert judge(hour(rate=-7 * MIB / 3600)).is_flat


def test_a_growth_within_the_noise_is_no_leak_and_a_clear_one_is() -> None:
    rate = 1.5 * ALLOWED_BYTES / (0.8 * 3600)
    assert judge(hour(rate=rate, noise=30 * MIB, warm_up=0, count=12)).is_flat
    assert not judge(hour(rate=rate, noise=0, warm_up=0, count=12)).is_flat


@pytest.mark.parametrize("name", ["descriptors", "threads", "tasks"])
def test_one_more_of_what_is_counted_is_a_leak_though_it_came_late(name: str) -> None:
    readings = hour()
    for number in range(len(readings) - 10, len(readings)):
        readings[number] = replace(readings[number], **{name: getattr(readings[number], name) + 1})
    verdict = judge(readings)
    assert not verdict.is_flat
    assert name in str(verdict)


def test_what_is_open_for_a_moment_only_is_no_leak() -> None:
    readings = hour()
    readings[-1] = replace(readings[-1], descriptors=35)
    readings[len(readings) // 5] = replace(readings[len(readings) // 5], tasks=40)
    assert judge(readings).is_flat


def test_what_is_away_for_a_moment_only_is_no_leak() -> None:
    readings = hour()
    first = next(number for number, one in enumerate(readings) if one is warm(readings)[0])
    readings[first + 3] = replace(readings[first + 3], tasks=24)
    assert judge(readings).is_flat


def test_too_few_readings_are_never_called_flat() -> None:
    few = hour(count=LEAST_READINGS)
    assert len(warm(few)) < LEAST_READINGS
    for readings in ([], few):
        verdict = judge(readings)
        assert not verdict.is_flat
        assert str(verdict) == "too short to tell"
