"""Schedules of chance, each the same in every run. `scripts/soak` plays others, for as long as one
likes."""

import pytest

from tests.simulation.processes import soak


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 1001])
def test_random_schedules_keep_every_promise_and_play_twice_alike(first: int) -> None:
    played = soak("--seed", str(first), "--schedules", "20", "--twice")
    assert played.returncode == 0, played.stdout
    assert "20 schedules" in played.stdout


@pytest.mark.slow
def test_a_group_of_eight_does_as_well() -> None:
    played = soak("--seed", "1", "--schedules", "3", "--devices", "8")
    assert played.returncode == 0, played.stdout


@pytest.mark.slow
def test_a_violation_is_shown_with_the_way_to_play_it_again() -> None:
    played = soak("--seed", "1", "--schedules", "3", "--mutation", "drops-losers")
    assert played.returncode == 1
    assert "seed 1: P1 ada lost write" in played.stdout
    assert "again: scripts/soak --replay 1 --mutation drops-losers" in played.stdout
