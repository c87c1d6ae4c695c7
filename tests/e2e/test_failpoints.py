"""A power cut at every point where one would hurt: nothing torn, nothing lost, nothing back.

`scripts/crashes` does the same for each kind of change by itself, and at later times that a point
is reached.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2psync import failpoints
from p2psync.daemon.power_cut import VARIABLE
from tests.e2e.changes import SCENARIOS, Changes
from tests.e2e.crashing import Victims, await_end, lay_out, play, rests
from tests.e2e.device import Device
from tests.e2e.harness import Lab, assert_sound_logs, converge, pair, start_all
from tests.e2e.processes import eventually
from tests.e2e.trees import assert_same_trees

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


def _changes_through(
    victims: Victims, changes: Changes, *points: str, before: Callable[[], None] = lambda: None
) -> None:
    victims.bob.kill()
    before()
    play(SCENARIOS, changes)
    for point in points:
        victims.launch_to_die(point)
        victims.await_death(point)
        victims.check_crash(changes, point)
    victims.bob.start()
    victims.rest()
    victims.check_end(changes, points[-1])


@pytest.mark.parametrize("point", CHANGING)
def test_a_power_cut_while_changes_go_both_ways(stage: Stage, victims: Victims, point: str) -> None:
    _changes_through(victims, stage.rounds[point], point)


def test_a_second_power_cut_while_what_the_first_one_displaced_is_put_away(
    stage: Stage, victims: Victims
) -> None:
    point = "trash.before-recovering"
    _changes_through(victims, stage.rounds[point], "commit.after-swap", point)


@pytest.mark.parametrize("point", RENEWING)
def test_a_power_cut_while_an_index_from_an_earlier_time_begins_anew(
    stage: Stage, victims: Victims, point: str, tmp_path: Path
) -> None:
    early = tmp_path / "index"
    victims.bob.kill()
    for suffix in ("", "-wal"):
        shutil.copy(f"{victims.index}{suffix}", f"{early}{suffix}")
    victims.bob.start()
    victims.bob.write("later", point)
    victims.rest()

    def put_back() -> None:
        for suffix in ("", "-wal"):
            shutil.copy(f"{early}{suffix}", f"{victims.index}{suffix}")
        Path(f"{victims.index}-shm").unlink(missing_ok=True)

    _changes_through(victims, stage.rounds[point], point, before=put_back)


def test_a_power_cut_while_a_damaged_index_is_set_aside(victims: Victims) -> None:
    point = "database.set-aside"
    before = assert_same_trees({"ada": victims.ada.root, "bob": victims.bob.root})
    victims.bob.stop()
    with victims.index.open("r+b") as file:
        file.write(b"no database any more")
    victims.launch_to_die(point)
    victims.await_death(point)

    victims.bob.start()

    victims.rest()
    assert assert_same_trees({"ada": victims.ada.root, "bob": victims.bob.root}) == before


@pytest.mark.parametrize("point", ADDING)
def test_a_power_cut_while_a_folder_is_added(victims: Victims, point: str) -> None:
    ada, bob = victims.devices
    roots = {each.name: each.home.with_name(point) for each in (ada, bob)}
    for name, root in roots.items():
        root.mkdir()
        (root / f"of {name}").write_text(f"{name} at {point}")
        (root / "the same").write_text("the same")
    ada.add_folder(point, root=roots["ada"])
    bob.kill()
    bob.start({VARIABLE: point})

    assert bob.cli("folder", "add", roots["bob"], "--name", point).code != 0
    victims.await_death(point)

    bob.start()
    if not any(row["name"] == point for row in bob.glance()["folders"]):
        bob.add_folder(point, root=roots["bob"])
    _hold_the_same(victims, roots, 3)
    for device in (ada, bob):
        device.ok("folder", "remove", point)


def _hold_the_same(victims: Victims, roots: dict[str, Path], count: int) -> None:
    """Before they met, each was in sync with all whom it knew to take part."""

    def hold() -> bool:
        rests(victims.devices)
        return len(assert_same_trees(roots)) == count

    eventually(hold, within=30, what="both hold the same")


@pytest.mark.parametrize("point", REMOVING)
def test_a_power_cut_while_a_folder_is_removed(victims: Victims, point: str) -> None:
    ada, bob = victims.devices
    roots = {each.name: each.home.with_name(point) for each in (ada, bob)}
    for device in (ada, bob):
        device.add_folder(point, root=roots[device.name])
    (roots["ada"] / "file").write_text(point)
    rests(victims.devices)
    bob.kill()
    bob.start({VARIABLE: point})

    assert bob.cli("folder", "remove", point).code != 0
    victims.await_death(point)

    bob.start()
    assert (roots["bob"] / "file").read_text() == point
    if not any(row["name"] == point for row in bob.glance()["folders"]):
        bob.add_folder(point, root=roots["bob"])
    (roots["bob"] / "file").write_text(f"{point} again")
    _hold_the_same(victims, roots, 1)
    assert (roots["ada"] / "file").read_text() == f"{point} again"
    for device in (ada, bob):
        device.ok("folder", "remove", point)
    assert len(list((bob.home / "indexes").glob("*.db"))) == 1, "an index that nobody needs is left"


@pytest.mark.parametrize("point", JOINING)
@pytest.mark.parametrize("victim", ["host", "guest"])
def test_a_power_cut_while_devices_pair(lab: Lab, victim: str, point: str) -> None:
    devices = [lab.prepare(name) for name in ("host", "guest")]
    host, guest = devices
    dying = devices[victim == "guest"]
    for device in devices:
        device.start({VARIABLE: point} if device is dying else {})

    guest.join(host.new_code(), address=host.address())
    assert await_end(dying, point)

    dying.start()
    if not (host.peer(guest) and guest.peer(host)):
        pair(host, guest)
    _all_connected(host, guest)
    for device in devices:
        device.add_folder()
    host.write("file", "for both")
    assert len(converge(devices)) == 1


def _all_connected(one: Device, other: Device) -> None:
    eventually(
        lambda: one.is_connected_to(other) and other.is_connected_to(one),
        within=20,
        what="both are connected",
    )


@pytest.mark.parametrize("point", IDENTITY)
def test_a_power_cut_while_a_device_gets_its_identity(lab: Lab, point: str) -> None:
    device = lab.prepare("ada")
    for name in ("device.key", "device.crt"):
        (device.home / name).unlink()
    device.launch({VARIABLE: point})
    assert await_end(device, point)
    made = [device.home / name for name in ("device.key", "device.crt")]
    before = {path: path.read_bytes() for path in made if path.exists()}

    device.start()

    assert before.items() <= {path: path.read_bytes() for path in made}.items()
    left = [path.name for path in device.home.iterdir() if path.name.startswith(".device.")]
    assert left == [], "a key that nobody needs is left"


def test_every_point_has_a_test() -> None:
    names = {point.partition(":")[0] for point in (*CHANGING, *SPECIAL)}
    assert names == set(failpoints.NAMES)
