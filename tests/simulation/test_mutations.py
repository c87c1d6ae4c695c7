"""The simulation notices what it is there for: each of these broken engines, and soon."""

import re

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.processes import soak

MOST_SCHEDULES = 120


@pytest.mark.slow
@pytest.mark.parametrize("mutation", sorted(MUTATIONS))
def test_a_broken_engine_is_noticed(mutation: str) -> None:
    played = soak(
        "--seed", "5", "--schedules", str(MOST_SCHEDULES), "--until-failure", "--mutation", mutation
    )
    # Of a promise, and not because the broken engine cannot be simulated.
    assert re.search(r"^seed \d+: (P\d+ |drift found)", played.stdout, re.MULTILINE), played
