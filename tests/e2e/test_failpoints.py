"""A power cut at every point where one would hurt: nothing torn, nothing lost, nothing back.

`scripts/crashes` cuts the power at every point in every situation by itself, and at later times
that a point is reached.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync import failpoints
from tests.e2e import rounds
from tests.e2e.changes import SCENARIOS, Changes
from tests.e2e.crashing import Victims, lay_out
from tests.e2e.harness import Lab, assert_sound_logs, start_all

pytestmark = pytest.mark.limit(120)

ADDING = ("adopt.before-marking", "folder.marked", "folder.saved", "database.created")
REMOVING = ("folder.before-forgetting", "folder.forgotten", "folder.released")
RENEWING = ("index.before-renewing", "index.after-renewing")
JOINING = ("membership.before-saving", "membership.after-saving")
IDENTITY = (
    "identity.before-renaming",
    "identity.before-renaming:2",
    "identity.key-written",
    "identity.certificate-written",
)
SPECIAL = (
    *(*ADDING, *REMOVING, *RENEWING, *JOINING, *IDENTITY),
    *("trash.before-recovering", "database.set-aside"),
)
CHANGING = tuple(name for name in failpoints.NAMES if name not in SPECIAL)
"""Reached while changes of all kinds go both ways."""


class Stage:
    """The pair of devices for all tests here, made anew after a test that failed."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._lab: Lab | None = None
        self._made = 0
        self.is_good = False
        self.victims: Victims
        self.rounds: dict[str, Changes]

    def prepare(self) -> None:
        if self.is_good:
            return
        self.close()
        self._made += 1
        self._lab = Lab(self._base / str(self._made))
        self.victims = victims = Victims(self._lab)
        start_all(victims.devices)
        victims.meet()
        self.rounds = {
            point: victims.round(point)
            for point in (*CHANGING, *RENEWING, "trash.before-recovering")
        }
        for changes in self.rounds.values():
            lay_out(SCENARIOS, changes)
        victims.rest()

    def close(self) -> None:
        if self._lab is not None:
            self._lab.close()
            if self.is_good:
                assert_sound_logs(self._lab.logs())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("failpoints")
    stage = Stage(base)
    try:
        yield stage
    finally:
        stage.close()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def victims(stage: Stage) -> Iterator[Victims]:
    """ada and bob, at rest; bob is there again when the test was passed."""
    stage.prepare()
    stage.is_good = False
    yield stage.victims
    process = stage.victims.bob.process
    stage.is_good = process is not None and process.poll() is None


GROUP = 5
GROUPS = [CHANGING[at : at + GROUP] for at in range(0, len(CHANGING), GROUP)]
"""Several power cuts before anything may come to rest: starting again is what takes most time."""


@pytest.mark.parametrize("points", GROUPS, ids=lambda points: f"{points[0]}…")
def test_power_cuts_while_changes_go_both_ways(
    stage: Stage, victims: Victims, points: tuple[str, ...]
) -> None:
    victims.bob.kill()
    for at, point in enumerate(points):
        for scenario in SCENARIOS:
            scenario.change(stage.rounds[point])
        victims.launch_to_die(point)
        assert victims.dies(point), f"{point} was not reached"
        for so_far in points[: at + 1]:
            victims.check_crash(stage.rounds[so_far], point)
    victims.bob.start()
    victims.rest()
    for point in points:
        victims.check_end(stage.rounds[point], f"{point} and others")


def test_a_second_power_cut_while_what_the_first_one_displaced_is_put_away(
    stage: Stage, victims: Victims
) -> None:
    point = "trash.before-recovering"
    assert rounds.changes_meet(
        victims, SCENARIOS, stage.rounds[point], point, first="commit.after-swap"
    )


@pytest.mark.parametrize("point", RENEWING)
def test_a_power_cut_while_an_index_from_an_earlier_time_begins_anew(
    stage: Stage, victims: Victims, point: str, tmp_path: Path
) -> None:
    put_back = rounds.index_of_yesterday(victims, tmp_path / point)
    assert rounds.changes_meet(victims, SCENARIOS, stage.rounds[point], point, before=put_back)


def test_a_power_cut_while_a_damaged_index_is_set_aside(victims: Victims) -> None:
    assert rounds.index_is_damaged(victims, "database.set-aside")


@pytest.mark.parametrize("point", ADDING)
def test_a_power_cut_while_a_folder_is_added(victims: Victims, point: str) -> None:
    assert rounds.folder_is_added(victims, point, point)


@pytest.mark.parametrize("point", REMOVING)
def test_a_power_cut_while_a_folder_is_removed(victims: Victims, point: str) -> None:
    assert rounds.folder_is_removed(victims, point, point)


@pytest.mark.parametrize(("victim", "point"), [*zip(("host", "guest"), JOINING, strict=True)])
def test_a_power_cut_while_devices_pair(lab: Lab, victim: str, point: str) -> None:
    assert rounds.devices_pair(lab, victim, point)


@pytest.mark.parametrize("point", IDENTITY)
def test_a_power_cut_while_a_device_gets_its_identity(lab: Lab, point: str) -> None:
    assert rounds.device_gets_identity(lab, point)


def test_every_point_has_a_test() -> None:
    names = {point.partition(":")[0] for point in (*CHANGING, *SPECIAL)}
    assert names == set(failpoints.NAMES)
