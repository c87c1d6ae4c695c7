"""A synchronizer without fault is found without fault, and each fault is found."""

from pathlib import Path

import pytest

from tests.oracle import fakes
from tests.oracle.run import Outcome, Plan, Run, device_name
from tests.oracle.sampler import Sampler

DEVICES = 3


def check(system: fakes.Perfect, base: Path, *, operations: int, seed: int) -> Outcome:
    roots = {device_name(number): root for number, root in enumerate(system.roots)}
    sampler = Sampler(roots, system.is_private)
    system.on_write = lambda device: sampler.look(device_name(device))
    plan = Plan(operations, seed, partitions=True, kills=True, settle_s=1, pause_s=0)
    return Run(system, plan, base, sampler=sampler).execute()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_no_fault_is_found_where_there_is_none(tmp_path: Path, seed: int) -> None:
    system = fakes.Perfect(tmp_path, DEVICES, seed=seed)
    outcome = check(system, tmp_path, operations=120, seed=seed)
    assert outcome.is_clean, "\n".join(map(str, outcome.violations))
    assert outcome.operations >= 120
    assert outcome.copies, "there were conflicts"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (fakes.LastWriterWins, "P1"),
        (fakes.BlindlyReplacing, "P1"),
        (fakes.Resurrecting, "P2"),
        (fakes.CryingConflict, "P2"),
        (fakes.Duplicating, "P3"),
        (fakes.WritingInPlace, "P5"),
        (fakes.Mixing, "P5"),
        (fakes.LeavingBehind, "P11"),
        (fakes.ForgettingModes, "P11"),
    ],
)
def test_each_fault_is_found_and_told_as_a_story(
    tmp_path: Path, kind: type[fakes.Perfect], rule: str
) -> None:
    outcome = check(kind(tmp_path, DEVICES, seed=1), tmp_path, operations=80, seed=1)
    told = [one for one in outcome.violations if one.rule == rule]
    assert told, outcome.counts
    assert all(one.story for one in told)
