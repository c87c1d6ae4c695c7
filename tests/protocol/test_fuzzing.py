"""A handful of what `scripts/fuzz` does with as many as one likes."""

import random

import pytest

from tests.support.fuzzing import Target, damaged, targets

TARGETS = targets()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_is_damaged_is_taken_whole_or_refused(target: Target) -> None:
    chance = random.Random(1)
    outcomes = {target.take(damaged(chance, target.seeds)) for _ in range(300)}

    assert outcomes == {True, False}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_is_not_damaged_is_taken(target: Target) -> None:
    assert all(target.take(seed) for seed in target.seeds if target.name != "pairing")


def test_the_same_seed_gives_the_same_damage() -> None:
    one, other = random.Random(7), random.Random(7)

    seeds = TARGETS[0].seeds
    assert [damaged(one, seeds) for _ in range(50)] == [damaged(other, seeds) for _ in range(50)]
