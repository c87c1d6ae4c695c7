"""Networks at their worst: what comes late, never, cut off or changed on its way."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.changes import SCENARIOS, Changes
from tests.e2e.crashing import lay_out
from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, start_all
from tests.e2e.processes import eventually, in_parallel
from tests.e2e.proxy import Fault, Proxy
from tests.e2e.trees import Tree, incompressible, snapshot, write_many_files

BETWEEN = "127.0.0.9"
"""Where the proxy is; the devices are elsewhere in 127.0.0.0/8 and do not know of each other."""

NOTICED_WITHIN_S = 15 + 2.0
"""With an allowance for a machine that is busy."""

MB = 1_000_000
CUTS = 3
BEFORE_A_CUT = 5 * MB


def _prepare(lab: Lab, name: str, host: str) -> Device:
    device = lab.prepare(name, listen=f"{host}:0")
    config = device.home / "config.toml"
    text, changed = re.subn(r"(?m)^(mdns|beacon) = true$", r"\1 = false", config.read_text())
    assert changed == 2
    config.write_text(text)
    return device


@contextmanager
def _proxied(host: Device, guest: Device) -> Iterator[Proxy]:
    """Between two running devices, which are then paired and share a folder."""
    places = [device.address().rpartition(":") for device in (host, guest)]
    with Proxy(BETWEEN, *((name, int(port)) for name, _, port in places)) as proxy:
        joined = guest.join(host.new_code(), address=f"{BETWEEN}:{places[0][2]}")
        assert joined.code == 0, str(joined)
        eventually(partial(_connected, host, guest), within=20, what="connected")
        for device in (host, guest):
            device.add_folder()
        yield proxy
        for device, other in ((host, guest), (guest, host)):
            row = device.peer(other)
            assert row
            assert row["address"].startswith(f"{BETWEEN}:"), f"went past the proxy: {row}"


def _connected(one: Device, other: Device) -> bool:
    return one.is_connected_to(other) and other.is_connected_to(one)


@pytest.fixture
def far_apart(lab: Lab) -> Iterator[tuple[Device, Device, Proxy]]:
    ada, bob = _prepare(lab, "ada", "127.0.0.2"), _prepare(lab, "bob", "127.0.0.3")
    start_all([ada, bob])
    with _proxied(ada, bob) as proxy:
        yield ada, bob, proxy


def _fill(ada: Device, bob: Device, *, large: int = 3 * MB) -> Tree:
    """Elsewhere, and moved in at once; all that is to be there in the end."""
    for device, seed in ((ada, 31), (bob, 32)):
        place = device.home.with_name(f"of {device.name}")
        write_many_files(place, 40, size=20_000, seed=seed)
        (place / "large.bin").write_bytes(incompressible(large, seed=seed + 10))
        place.rename(device.root / place.name)
    return {**snapshot(ada.root), **snapshot(bob.root)}


def _has_gone_through(proxy: Proxy, least: int) -> bool:
    return proxy.relayed >= least


def _has_connected_again(proxy: Proxy, before: int) -> bool:
    return proxy.connections > before


def _assert_whole(devices: tuple[Device, Device], complete: Tree) -> None:
    for device in devices:
        for path, node in snapshot(device.root).items():
            assert complete[path] == node, f"{path!r} on {device.name} is not what was written"


def test_what_arrived_before_a_cut_is_not_fetched_again_through_a_slow_network(
    far_apart: tuple[Device, Device, Proxy],
) -> None:
    ada, bob, proxy = far_apart
    proxy.delay_s, proxy.bytes_per_s = 0.02, 15 * MB
    complete = _fill(ada, bob, large=10 * MB)
    size = sum(path.stat().st_size for root in (ada.root, bob.root) for path in _files(root))
    begun, links = proxy.relayed, proxy.connections
    for _ in range(CUTS):
        goal = proxy.relayed + BEFORE_A_CUT
        eventually(
            partial(_has_gone_through, proxy, goal), within=30, what=f"{goal} went", every=0.005
        )
        proxy.cut()
        _assert_whole((ada, bob), complete)

    assert converge([ada, bob]) == complete
    assert proxy.connections >= links + CUTS
    assert ada.conflicts() == bob.conflicts() == []
    fetched = proxy.relayed - begun
    # Without what was kept, all that went before each cut would have gone again.
    assert fetched < size + CUTS * BEFORE_A_CUT // 2, f"{fetched} bytes to move {size}"


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*.bin") if ".p2psync" not in path.parts]


def test_a_flipped_bit_ends_the_link_and_nothing_wrong_lands(
    far_apart: tuple[Device, Device, Proxy],
) -> None:
    ada, bob, proxy = far_apart
    complete = _fill(ada, bob)
    for number, after in enumerate((10_000, 777_777, 1_234_567), start=1):
        before = proxy.connections
        proxy.flip(after=after)
        eventually(
            partial(_has_connected_again, proxy, before), within=30, what="a link anew", every=0.01
        )
        assert proxy.flipped == number
        _assert_whole((ada, bob), complete)

    assert converge([ada, bob]) == complete


def _stop(device: Device, number: signal.Signals) -> None:
    assert device.process is not None
    os.kill(device.process.pid, number)


@pytest.mark.limit(150)
def test_silence_is_noticed_in_fifteen_seconds_and_heals_by_itself(lab: Lab) -> None:
    """A network that swallows everything, one that swallows one direction, and a daemon that stands
    still, all at once, because each takes its time. Both users go on working meanwhile, and what a
    silent peer was asked for comes from another one that has it."""
    names = ("ada", "bob", "cyd", "dan", "eve", "fay")
    devices = [_prepare(lab, name, f"127.0.0.{at}") for at, name in enumerate(names, start=2)]
    start_all(devices)
    pairs = list(zip(devices[::2], devices[1::2], strict=True))
    (ada, bob), (cyd, dan), (eve, fay) = pairs
    with ExitStack() as stack:
        proxies = [stack.enter_context(_proxied(*pair)) for pair in pairs]
        swallowing, one_way, _ = proxies
        (gil, hal, ida), of_gil = stack.enter_context(_two_sources(lab))
        meanwhile = [Changes("meanwhile", *(each.root for each in pair)) for pair in pairs]
        for changes in meanwhile:
            lay_out(SCENARIOS, changes)
        in_parallel(converge, pairs)
        goals = {proxy: proxy.relayed + 300_000 for proxy in (*proxies, of_gil)}
        for proxy in proxies:
            proxy.delay_s = 0.2
        hal.add_folder()
        for pair in pairs:
            _fill(*pair)
        for proxy, goal in goals.items():
            eventually(partial(_has_gone_through, proxy, goal), within=30, what="under way")

        swallowing.fault = of_gil.fault = Fault.BLACKHOLE
        one_way.fault = Fault.HALF_OPEN
        # gil too: ida could have told it of another way to hal.
        for device in (eve, gil):
            _signal(device, signal.SIGSTOP)
        try:
            assert snapshot(hal.root) != snapshot(ida.root)
            for changes in meanwhile:
                for scenario in SCENARIOS:
                    scenario.change(changes)
            deaf = ((ada, bob), (bob, ada), (dan, cyd), (fay, eve), (hal, gil))
            eventually(
                lambda: not any(one.is_connected_to(other) for one, other in deaf),
                within=NOTICED_WITHIN_S,
                what="whoever hears nothing says so",
            )
            eventually(
                lambda: snapshot(hal.root) == snapshot(ida.root),
                within=10,
                what="ida gave the rest",
            )
        finally:
            for device in (eve, gil):
                _signal(device, signal.SIGCONT)
        of_gil.bytes_per_s = 0
        for proxy in (swallowing, one_way, of_gil):
            proxy.fault = Fault.NONE

        for pair, tree, changes in zip(pairs, in_parallel(converge, pairs), meanwhile, strict=True):
            assert len([path for path in tree if path.endswith(b"large.bin")]) == 2
            for device in pair:
                wrong = changes.wrong_at_the_end(changes.tree(device.root / changes.where))
                assert not wrong, f"on {device.name}: {wrong}"
        assert len(converge([gil, hal, ida])) == 42


@contextmanager
def _two_sources(lab: Lab) -> Iterator[tuple[tuple[Device, Device, Device], Proxy]]:
    """The second device lacks what both others have, and will share their folder; the first one is
    behind a slow proxy."""
    names = ("gil", "hal", "ida")
    gil, hal, ida = [
        _prepare(lab, name, f"127.0.0.{at}") for at, name in enumerate(names, start=12)
    ]
    place = lab.base / "filled"
    write_many_files(place, 40, size=20_000, seed=33)
    (place / "large.bin").write_bytes(incompressible(30 * MB, seed=34))
    for device in (gil, ida):
        shutil.copytree(place, device.root)
    start_all([gil, hal, ida])
    host, _, port = gil.address().rpartition(":")
    with Proxy(BETWEEN, (host, int(port))) as proxy:
        proxy.bytes_per_s = MB // 4
        for guest, other, address in (
            (hal, gil, f"{BETWEEN}:{port}"),
            (ida, hal, hal.address()),
        ):
            joined = guest.join(other.new_code(), address=address)
            assert joined.code == 0, str(joined)
        for device in (gil, ida):
            device.add_folder()
            eventually(partial(_connected, hal, device), within=20, what="hal sees it")
        yield (gil, hal, ida), proxy


def _signal(device: Device, number: signal.Signals) -> None:
    assert device.process is not None
    os.kill(device.process.pid, number)
