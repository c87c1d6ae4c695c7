"""Users at work on three devices that are parted and killed: nothing is lost, back, or torn."""

from pathlib import Path

import pytest

from tests.e2e.harness import assert_sound_logs
from tests.oracle.on_p2psync import P2psync
from tests.oracle.run import Plan, Run, device_name
from tests.oracle.sampler import Sampler

DEVICES = 3
OPERATIONS = 150


@pytest.mark.limit(120)
def test_no_user_finds_anything_wrong(tmp_path: Path) -> None:
    plan = Plan(OPERATIONS, seed=1, partitions=True, kills=True, settle_s=40)
    system = P2psync(tmp_path / "devices", DEVICES)
    try:
        roots = {device_name(number): root for number, root in enumerate(system.roots)}
        with Sampler(roots, system.is_private) as sampler:
            outcome = Run(system, plan, tmp_path / "desks", sampler=sampler).execute()
    finally:
        system.close()
    assert outcome.is_clean, "\n".join(map(str, outcome.violations))
    assert outcome.operations >= OPERATIONS
    assert outcome.kills
    assert outcome.partitions
    assert_sound_logs(system.logs())
