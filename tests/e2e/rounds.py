"""What happens while the power of one daemon is cut: each round lets its users do something, ends
bob's daemon when it reaches a failpoint, starts it again, and looks at what both have then.

A round returns whether the point was reached at all; either way nothing may be lost or wrong.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from p2psync.daemon.power_cut import VARIABLE
from tests.e2e.changes import Changes, Scenario
from tests.e2e.crashing import Victims, await_end, is_at_rest, rests
from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, pair, start_all
from tests.e2e.processes import eventually, in_parallel
from tests.e2e.trees import assert_same_trees, snapshot

_SUFFIXES = ("", "-wal")


def _nothing() -> None:
    pass


def changes_meet(
    victims: Victims,
    scenarios: Sequence[Scenario],
    changes: Changes,
    point: str,
    *,
    before: Callable[[], None] = _nothing,
    first: str | None = None,
) -> bool:
    """Both users change what `lay_out` made, while bob's daemon is down; `before` comes first.
    Where there is a `first` point, the power goes there too, before."""
    victims.bob.kill()
    before()
    for scenario in scenarios:
        scenario.change(changes)
    if first is not None:
        victims.launch_to_die(first)
        assert victims.dies(first), f"{first} was not reached"
        victims.check_crash(changes, first)
    victims.launch_to_die(point)
    died = victims.dies(point)
    if died:
        victims.check_crash(changes, point)
    _start_anew(victims.bob)
    victims.rest()
    victims.check_end(changes, point)
    return died


def index_of_yesterday(victims: Victims, place: Path) -> Callable[[], None]:
    """What puts back the index as it is now, after its device has told others of later writes."""
    place.mkdir(parents=True)
    victims.bob.kill()
    index = victims.index
    for suffix in _SUFFIXES:
        shutil.copy(f"{index}{suffix}", place / f"index{suffix}")
    victims.bob.start()
    victims.bob.write(f"later/{place.name}", place.name)
    victims.rest()

    def put_back() -> None:
        for suffix in _SUFFIXES:
            shutil.copy(place / f"index{suffix}", f"{index}{suffix}")
        Path(f"{index}-shm").unlink(missing_ok=True)

    return put_back


def index_is_damaged(victims: Victims, point: str) -> bool:
    """Nobody changes anything: an empty index takes nothing away from anyone."""
    roots = {device.name: device.root for device in victims.devices}
    before = assert_same_trees(roots)
    victims.bob.kill()
    for suffix in ("-wal", "-shm"):
        Path(f"{victims.index}{suffix}").unlink(missing_ok=True)
    victims.index.write_bytes(b"no database any more")
    victims.launch_to_die(point)
    died = victims.dies(point)
    assert snapshot(victims.bob.root) == before
    _start_anew(victims.bob)
    victims.rest()
    assert assert_same_trees(roots) == before
    return died


def folder_is_added(victims: Victims, name: str, point: str) -> bool:
    """One that ada has; both have some files in it, of which one is the same."""
    ada, bob = victims.devices
    roots = {each.name: each.home.with_name(name) for each in (ada, bob)}
    for who, root in roots.items():
        root.mkdir()
        (root / f"of {who}").write_text(f"{who} at {point}")
        (root / "the same").write_text("the same")
    ada.add_folder(name, root=roots["ada"])
    bob.kill()
    victims.launch_to_die(point)
    if _answers(bob):
        bob.cli("folder", "add", roots["bob"], "--name", name)
    died = victims.dies(point, done=lambda: _are_same(roots))
    for who, root in roots.items():
        assert (root / f"of {who}").read_text() == f"{who} at {point}"
    _start_anew(bob)
    if not _has_folder(bob, name):
        bob.add_folder(name, root=roots["bob"])
    _hold_the_same(victims, roots, 3)
    in_parallel(lambda device: device.ok("folder", "remove", name), (ada, bob))
    return died


def folder_is_removed(victims: Victims, name: str, point: str) -> bool:
    """It stays on the disk, whole; added again and edited, it goes on."""
    ada, bob = victims.devices
    roots = {each.name: each.home.with_name(name) for each in (ada, bob)}
    in_parallel(lambda device: device.add_folder(name, root=roots[device.name]), (ada, bob))
    (roots["ada"] / "file").write_text(point)
    _hold_the_same(victims, roots, 1)
    bob.kill()
    victims.launch_to_die(point)
    if _answers(bob):
        bob.cli("folder", "remove", name)
    died = victims.dies(point)
    _start_anew(bob)
    assert (roots["bob"] / "file").read_text() == point
    if not _has_folder(bob, name):
        bob.add_folder(name, root=roots["bob"])
    # An edit that comes before a new index has seen the file would be of a file that is new.
    _hold_the_same(victims, roots, 1)
    (roots["bob"] / "file").write_text(f"{point} again")
    _hold_the_same(victims, roots, 1)
    assert (roots["ada"] / "file").read_text() == f"{point} again"
    in_parallel(lambda device: device.ok("folder", "remove", name), (ada, bob))
    assert len(list((bob.home / "indexes").glob("*.db"))) == 1, "an index that nobody needs is left"
    return died


def devices_pair(lab: Lab, victim: str, point: str) -> bool:
    """Both have a folder of the same name with files of their own."""
    devices = in_parallel(lab.prepare, ("host", "guest"))
    host, guest = devices
    dying = devices[victim == "guest"]
    start_all(devices)
    for device in devices:
        device.write(f"of {device.name}", f"{device.name} at {point}")
        device.write("the same", "the same")
    in_parallel(lambda device: device.add_folder(), devices)
    dying.kill()
    dying.launch({VARIABLE: point})
    if _answers(dying):
        code = host.cli("pair", "new", "--json")
        if code.code == 0:
            guest.join(code.json()["code"], address=host.address())
    died = await_end(dying, point, unless=lambda: is_at_rest(devices))
    _start_anew(dying)
    if not (host.peer(guest) and guest.peer(host)):
        pair(host, guest)
    eventually(lambda: _connected(host, guest), within=20, what="both are connected")
    tree = converge(devices)
    assert len(tree) == 3
    for device in devices:
        assert host.read(f"of {device.name}") == f"{device.name} at {point}".encode()
    return died


def device_gets_identity(lab: Lab, point: str) -> bool:
    """What is there of it when the power goes stays as it is, and nothing half made stays."""
    device = lab.prepare("ada")
    made = [device.home / name for name in ("device.key", "device.crt")]
    for path in made:
        path.unlink()
    device.launch({VARIABLE: point})
    died = not _answers(device)
    if died:
        assert await_end(device, point)
    before = {path: path.read_bytes() for path in made if path.exists()}
    if died:
        device.start()
    assert before.items() <= {path: path.read_bytes() for path in made}.items()
    left = [path.name for path in device.home.iterdir() if path.name.startswith(".device.")]
    assert left == [], "a key that nobody needs is left"
    return died


def _start_anew(device: Device) -> None:
    """So that it does not die any more."""
    if device.process is not None:
        device.kill()
    device.start()


def _are_same(roots: dict[str, Path]) -> bool:
    trees = [snapshot(root) for root in roots.values()]
    return all(tree == trees[0] for tree in trees)


def _answers(device: Device) -> bool:
    """Whether the daemon came up; False when it ended instead."""
    try:
        device.wait_until_ready()
    except RuntimeError:
        return False
    return True


def _connected(one: Device, other: Device) -> bool:
    return one.is_connected_to(other) and other.is_connected_to(one)


def _has_folder(device: Device, name: str) -> bool:
    return any(row["name"] == name for row in device.glance()["folders"])


def _hold_the_same(victims: Victims, roots: dict[str, Path], count: int) -> None:
    """Before they met, each was in sync with all whom it knew to take part."""

    def hold() -> bool:
        rests(victims.devices)
        return len(assert_same_trees(roots)) == count

    eventually(hold, within=30, what="both hold the same")
