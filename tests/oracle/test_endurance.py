"""Who is spared when, and what the exit code of `scripts/endurance` says."""

from pathlib import Path

import pytest

from tests.oracle import fakes
from tests.oracle.endurance import STEADY, is_sound, spared, table
from tests.oracle.gauges import Life
from tests.oracle.growth import judge
from tests.oracle.judge import Violation
from tests.oracle.run import Outcome, Plan, Run
from tests.oracle.test_growth import MIB, hour

OUTCOME = Outcome("p2psync", "1", seed=1)


def _life(device: str, **how: float) -> Life:
    count = int(how.pop("count", 360))
    peaks = {"memory": 99 * MIB, "descriptors": 40, "threads": 12}
    return Life(device, 1, hour(count=count, **how), peaks)


def _sound(*lives: Life, outcome: Outcome = OUTCOME, wrong: list[str] | None = None) -> bool:
    return is_sound(outcome, [(life, judge(life.rests)) for life in lives], wrong or [])


def test_the_steady_one_is_always_spared_and_each_other_one_by_turns_and_not_always() -> None:
    turns = [spared(done / 100) for done in range(101)]
    assert all(STEADY in turn for turn in turns)
    for other in (1, 2):
        assert 20 < sum(other in turn for turn in turns) < 60
    assert {1, 2} not in [turn - {STEADY} for turn in turns]


def test_it_is_sound_when_files_are_right_and_nothing_grows() -> None:
    steady = _life("dev0")
    assert _sound(steady, _life("dev1"), _life("dev2", count=5))
    assert not _sound(_life("dev0", rate=10 * MIB / 3600), _life("dev1"))
    assert not _sound(steady, _life("dev1", rate=10 * MIB / 3600))
    assert not _sound(steady, wrong=["the trees differ"])
    lost = Violation("P1", "dev0", "a", "token 1 is lost")
    assert not _sound(steady, outcome=Outcome("p2psync", "1", seed=1, violations=[lost]))


def test_a_steady_one_of_which_too_little_is_known_is_not_sound() -> None:
    assert not _sound(_life("dev0", count=5))
    assert not _sound(_life("dev1"))


def test_the_table_shows_the_slope_by_the_hour_and_the_verdict() -> None:
    life = _life("dev0", rate=10 * MIB / 3600, noise=0.0, warm_up=0.0)
    head, row, *_ = table([(life, judge(life.rests))]).splitlines()
    assert head.split()[:4] == ["device", "lived", "s", "rests"]
    assert row.split()[:5] == ["dev0", "3590", "288", "+10.00", "0.00"]
    assert "62.0 → 70.0 (99.0)  30 → 30 (40)" in row
    assert row.endswith("memory grew by 8.0 MiB in 2870 s")


class _Mortal(fakes.Perfect):
    """Remembers who was stopped or killed."""

    def __init__(self, base: Path) -> None:
        super().__init__(base, 3, seed=1)
        self.ended: set[int] = set()

    def stop(self, device: int) -> None:
        self.ended.add(device)
        super().stop(device)

    kill = stop


@pytest.mark.slow
def test_who_is_spared_is_neither_stopped_nor_killed_and_the_rests_are_told(
    tmp_path: Path,
) -> None:
    system = _Mortal(tmp_path)
    plan = Plan(250, seed=4, partitions=True, kills=True, settle_s=1, pause_s=0)
    run = Run(system, plan, tmp_path, sampler=None)
    run.steady = frozenset({STEADY, 2})
    rests: list[int] = []
    outcome = run.execute(at_rest=lambda: rests.append(run.outcome.stretches))
    assert outcome.is_clean
    assert outcome.kills + outcome.stops >= 4
    assert system.ended == {1}
    assert rests == [*range(2, outcome.stretches + 1)]
