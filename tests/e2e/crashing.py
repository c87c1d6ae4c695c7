"""Two paired devices of which one is cut off from its power, again and again."""

import itertools
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
_LOOKS_BETWEEN = 40


class Victims:
    """ada, who stays, and bob, whose daemon is ended at failpoints."""

    def __init__(self, lab: Lab, name: str = "") -> None:
        self.ada = lab.prepare(f"ada{name}")
        self.bob = lab.prepare(f"bob{name}")
        self.devices = (self.ada, self.bob)
        for device in self.devices:
            # In many rounds after one another more is deleted in a minute than people do.
            device.configure(delete_files=1_000_000)

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

    def dies(self, point: str, *, done: Callable[[], bool] = lambda: True) -> bool:
        """Whether bob's daemon ends there, before all that was to happen is `done`."""
        return await_end(self.bob, point, unless=lambda: is_at_rest(self.devices) and done())

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
    looks = itertools.count(1)
    eventually(
        # To look whether all is done keeps the daemons busy.
        lambda: ended() or (next(looks) % _LOOKS_BETWEEN == 0 and unless()),
        within=DIES_WITHIN_S,
        what=f"the daemon of {device.name} ends at {point}",
        every=0.01,
    )
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
    """Whether all see each other, are in sync as far as they say, and are right about it."""
    first, *others = devices
    try:
        if not all(first.is_connected_to(other) for other in others):
            return False
        # Asking makes them look at all their files first, so that they need a moment.
        # The one that may end comes last in `devices`.
        answers = [ControlClient(device.home).call("wait", timeout=1) for device in devices[::-1]]
        if not all(answer["done"] for answer in answers):
            return False
        assert_same_trees({device.name: device.root for device in devices})
    except (P2psyncError, AssertionError, FileNotFoundError):
        return False
    return True


def lay_out(scenarios: Sequence[Scenario], changes: Changes) -> None:
    for scenario in scenarios:
        scenario.base(changes)
