"""Four hosts in a ring whose network falls apart and heals: the same tree everywhere afterwards,
and a conflict copy for exactly what both halves edited."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import pytest

from tests.e2e.changes import SCENARIOS, Changes
from tests.e2e.crashing import lay_out
from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, everywhere, start_all
from tests.e2e.namespaces import Namespace, Network, needs_namespaces, network
from tests.e2e.processes import eventually

pytestmark = needs_namespaces

NOTICED_WITHIN_S = 15 + 2.0
"""With an allowance for a machine that is busy."""


class Ring(NamedTuple):
    net: Network
    hosts: Sequence[Namespace]
    devices: Sequence[Device]
    addresses: Sequence[tuple[str, str]]
    """Of both ends of the cable from each device to the next."""

    def swallow(self, cable: int) -> None:
        """Whatever is sent through it, in both directions."""
        for host, other in zip(self._ends(cable), reversed(self.addresses[cable]), strict=True):
            host.drop(f"ip saddr {other} drop")

    def swallow_no_more(self, cable: int) -> None:
        for host in self._ends(cable):
            host.drop_no_more()

    def _ends(self, cable: int) -> tuple[Namespace, Namespace]:
        return self.hosts[cable], self.hosts[(cable + 1) % len(self.hosts)]


@pytest.fixture
def ring(lab: Lab) -> Ring:
    made = network()
    net = made.__enter__()
    lab.finally_(lambda: made.__exit__(None, None, None))
    hosts = [net.host() for _ in range(4)]
    addresses = [net.cable(host, hosts[(at + 1) % 4]) for at, host in enumerate(hosts)]
    devices = [
        lab.prepare(name, listen="0.0.0.0:0", enter=host.enter)
        for name, host in zip(("ada", "bob", "cyd", "dan"), hosts, strict=True)
    ]
    start_all(devices)
    for at, device in enumerate(devices):
        port = device.address().rpartition(":")[2]
        if at < 3:
            joined = devices[at + 1].join(device.new_code(), address=f"{addresses[at][0]}:{port}")
            assert joined.code == 0, str(joined)
        device.add_folder()
    for at, device in enumerate(devices):
        eventually(partial(device.is_connected_to, devices[(at + 1) % 4]), within=30, what="a ring")
    return Ring(net, hosts, devices, addresses)


@pytest.mark.limit(120)
def test_both_halves_of_a_parted_ring_work_on_and_are_one_again_afterwards(ring: Ring) -> None:
    ada, bob, cyd, dan = devices = ring.devices
    first = Changes("first", ada.root, cyd.root)
    second = Changes("second", bob.root, ada.root)
    for changes in (first, second):
        lay_out(SCENARIOS, changes)
    converge(devices)

    # ada and bob, cyd and dan: one cable swallows everything, and one is pulled out.
    ring.swallow(1)
    ring.net.pull_out(ring.addresses[3][0])
    _work(first, ((ada, bob), (cyd, dan)))
    eventually(
        lambda: (
            not any(
                one.is_connected_to(other)
                for one, other in ((bob, cyd), (cyd, bob), (dan, ada), (ada, dan))
            )
        ),
        within=NOTICED_WITHIN_S,
        what="the halves know that they are parted",
    )
    ring.swallow_no_more(1)
    ring.net.plug_in(ring.addresses[3][0])
    converge(devices)
    _check(first, devices)

    # bob and cyd, dan and ada, and not for long enough to be noticed by all.
    ring.net.pull_out(ring.addresses[0][0])
    ring.swallow(2)
    _work(second, ((bob, cyd), (ada, dan)))
    ring.net.plug_in(ring.addresses[0][0])
    ring.swallow_no_more(2)
    converge(devices)
    for changes in (first, second):
        _check(changes, devices)


def _work(changes: Changes, halves: tuple[tuple[Device, ...], tuple[Device, ...]]) -> None:
    """In both halves, each of which has all that was done in it, and nothing from the other."""
    for scenario in SCENARIOS:
        scenario.change(changes)
    for number, half in enumerate(halves):
        half[0].write(f"{changes.where} in {number}", half[0].name)
    for number, half in enumerate(halves):
        everywhere(half, f"{changes.where} in {number}", half[0].name.encode())
        for device in half:
            assert device.read(f"{changes.where} in {1 - number}") is None, "not parted at all"


def _check(changes: Changes, devices: Sequence[Device]) -> None:
    for device in devices:
        wrong = changes.wrong_at_the_end(changes.tree(device.root / changes.where))
        assert not wrong, f"on {device.name}: {wrong}"
