"""Two paired devices of which one is cut off from its power, again and again."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from p2psync.cli.client import ControlClient
from p2psync.daemon.power_cut import VARIABLE
from p2psync.errors import P2psyncError
from tests.e2e.changes import Changes, Scenario
from tests.e2e.claims import false_claims
from tests.e2e.device import Device
from tests.e2e.harness import Lab, pair
from tests.e2e.processes import eventually
from tests.e2e.trees import assert_same_trees

DIES_WITHIN_S = 30.0
RESTS_WITHIN_S = 40.0


class Victims:
    """ada, who stays, and bob, whose daemon is ended at failpoints."""

    def __init__(self, lab: Lab, name: str = "") -> None:
        self.ada = lab.prepare(f"ada{name}")
        self.bob = lab.prepare(f"bob{name}")
        self.devices = (self.ada, self.bob)

    def meet(self) -> None:
        """Once both daemons run."""
        pair(self.ada, self.bob)
        for device in self.devices:
            device.add_folder()

    def round(self, where: str) -> Changes:
        return Changes(where, self.ada.root, self.bob.root)

    @property
    def index(self) -> Path:
        (index,) = (self.bob.home / "indexes").glob("*.db")
        return index

    def rest(self, within: float = RESTS_WITHIN_S) -> None:
        """Until both say that all is in sync everywhere, and are right."""
        rests(self.devices, within)
        assert_same_trees({device.name: device.root for device in self.devices})

    def launch_to_die(self, point: str) -> None:
        self.bob.launch({VARIABLE: point})

    def await_death(self, point: str) -> None:
        assert await_end(self.bob, point), f"{point} was not reached"

    def check_crash(self, changes: Changes, point: str) -> None:
        """Nothing partial is visible, and the index claims nothing that is not there."""
        torn = changes.torn(changes.tree(changes.bob))
        assert not torn, f"visible after a power cut at {point}: {torn}"
        claims = false_claims(self.index, changes, self.bob.root)
        assert not claims, f"claimed after a power cut at {point}: {claims}"

    def check_end(self, changes: Changes, point: str) -> None:
        for device in self.devices:
            wrong = changes.wrong_at_the_end(changes.tree(device.root / changes.where))
            assert not wrong, f"on {device.name}, after a power cut at {point}: {wrong}"


def await_end(device: Device, point: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
    """Wait for the daemon to end at the failpoint; False when `unless` came true instead."""
    process = device.process
    assert process is not None
    ended = lambda: process.poll() is not None  # noqa: E731
    what = f"the daemon of {device.name} ends at {point}"
    eventually(lambda: ended() or unless(), within=DIES_WITHIN_S, what=what, every=0.01)
    if not ended():
        return False
    assert process.returncode == -signal.SIGKILL, device.log_text()[-3000:]
    device.process = None
    return True


def rests(devices: Sequence[Device], within: float = RESTS_WITHIN_S) -> None:
    """Wait until all devices say that everything is in sync everywhere."""

    def done() -> bool:
        answers = [ControlClient(device.home).call("wait", timeout=within) for device in devices]
        assert all(answer["done"] for answer in answers), answers
        for device in devices:
            for row in device.glance()["folders"]:
                assert row["state"] == "idle", f"{device.name}: {row}"
        return True

    eventually(done, within=within, what="everything rests")


def is_at_rest(devices: Sequence[Device]) -> bool:
    """Whether all are in sync now, as far as they say."""
    try:
        answers = [ControlClient(device.home).call("wait", timeout=0) for device in devices]
    except P2psyncError:
        return False
    return all(answer["done"] for answer in answers)


def play(scenarios: Sequence[Scenario], changes: Changes) -> None:
    for scenario in scenarios:
        scenario.change(changes)


def lay_out(scenarios: Sequence[Scenario], changes: Changes) -> None:
    for scenario in scenarios:
        scenario.base(changes)
