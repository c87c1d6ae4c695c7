"""Devices find each other without being told where, in networks that carry less and less.

The networks are namespaces made by the test, so nothing is ever announced on a real interface.
"""

import socket
import subprocess
import sys

import pytest

from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, pair, start_all
from tests.e2e.namespaces import (
    MDNS_ONLY,
    NO_DATAGRAMS,
    NO_MULTICAST,
    Namespace,
    Network,
    needs_namespaces,
    network,
    overheard,
)
from tests.e2e.processes import eventually

pytestmark = needs_namespaces

RULES = {
    "mdns alone": (MDNS_ONLY,),
    "the beacon, multicast being blocked": NO_MULTICAST,
    "a typed address, all datagrams being blocked": (NO_DATAGRAMS,),
}


@pytest.fixture
def net(lab: Lab) -> Network:
    """A network that lasts as long as the lab, so that the daemons end first."""
    made = network()
    opened = made.__enter__()
    lab.finally_(lambda: made.__exit__(None, None, None))
    return opened


def _fill(device: Device) -> None:
    for number in range(20):
        device.write(f"from-{device.name}/{number}.txt", f"{device.name} {number}")


def _pair_and_sync(one: Device, other: Device, *, typed: bool) -> None:
    _fill(one)
    _fill(other)

    pair(one, other, address=typed)
    for device in (one, other):
        device.add_folder()

    tree = converge([one, other])
    assert len([node for node in tree.values() if node.kind == "file"]) == 40


@pytest.mark.parametrize("way", RULES)
def test_two_fresh_devices_on_one_host_pair_and_sync_by(way: str, lab: Lab, net: Network) -> None:
    host = net.lonely_host()
    host.drop(*RULES[way])
    devices = [lab.prepare(name, listen=None, enter=host.enter) for name in ("ada", "bob")]
    start_all(devices)

    _pair_and_sync(*devices, typed="typed" in way)


@pytest.mark.parametrize("way", RULES)
def test_two_hosts_joined_by_a_cable_pair_and_sync_by(way: str, lab: Lab, net: Network) -> None:
    hosts = [net.host(), net.host()]
    addresses = net.cable(*hosts)
    for host in hosts:
        host.drop(*RULES[way])
    devices = [
        lab.prepare(name, listen="0.0.0.0:0", enter=host.enter)
        for name, host in zip(("ada", "bob"), hosts, strict=True)
    ]
    start_all(devices)

    if "typed" in way:
        _pair_at(devices, addresses[0])
        for device in devices:
            _fill(device)
            device.add_folder()
        converge(devices)
    else:
        _pair_and_sync(*devices, typed=False)


def _pair_at(devices: list[Device], address: str) -> None:
    host, guest = devices
    port = host.address().rpartition(":")[2]
    joined = guest.join(host.new_code(), address=f"{address}:{port}")
    assert joined.code == 0, str(joined)


def test_a_device_that_comes_back_at_another_address_is_found_again(lab: Lab, net: Network) -> None:
    host = net.lonely_host()
    one, other = devices = [lab.prepare(n, listen=None, enter=host.enter) for n in ("ada", "bob")]
    start_all(devices)
    pair(one, other, address=False)
    before = other.address()

    other.stop()
    eventually(lambda: not one.is_connected_to(other), within=20, what="the link is gone")
    _occupy(host, lab, before)
    other.start()

    assert other.address() != before
    eventually(lambda: one.is_connected_to(other), within=20, what="connected again")


def _occupy(host: Namespace, lab: Lab, address: str) -> None:
    """Keep the port from being used again, as another program might."""
    port = address.rpartition(":")[2]
    code = (
        "import socket, sys\n"
        "kept = socket.create_server(('', int(sys.argv[1])))\n"
        "print('kept', flush=True)\n"
        "sys.stdin.read()\n"
    )
    keeper = subprocess.Popen(
        [*host.enter, sys.executable, "-c", code, port],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"kept\n"

    def release() -> None:
        keeper.communicate(timeout=10)

    lab.finally_(release)


def test_what_is_said_to_everyone_names_no_folder_no_device_and_no_host(
    lab: Lab, net: Network
) -> None:
    host = net.lonely_host()
    record = lab.base / "overheard"
    devices = [
        lab.prepare(name, listen=None, enter=host.enter) for name in ("adalovelace", "bobtables")
    ]
    with overheard(host, record):
        start_all(devices)
        pair(*devices, address=False)
        for device in devices:
            device.add_folder("taxreturns")
            device.write("salaries.ods", "figures")
        eventually(
            lambda: b"_p2psync" in record.read_bytes(), within=20, what="an announcement is heard"
        )
        converge(devices, name="taxreturns")

    said = record.read_bytes().lower()
    for secret in (b"adalovelace", b"bobtables", b"taxreturns", b"salaries", _host_name()):
        assert secret not in said, f"{secret!r} was said to everyone"


def _host_name() -> bytes:
    name = socket.gethostname().lower().encode()
    # A name of two or three letters is bound to turn up among random bytes.
    return name if len(name) > 3 else b"\0no such name\0"


def test_loopback_devices_announce_nothing_outside_loopback(lab: Lab, net: Network) -> None:
    inside, outside = net.host(), net.host()
    net.cable(inside, outside)
    record = lab.base / "overheard"
    with overheard(outside, record):
        devices = [lab.prepare(name, enter=inside.enter) for name in ("ada", "bob")]
        start_all(devices)
        pair(*devices, address=False)

    assert b"_p2psync" not in record.read_bytes()
    assert not [d for d in devices if not d.address().startswith("127.0.0.1:")]
