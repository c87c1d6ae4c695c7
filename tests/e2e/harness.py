"""Real daemons as separate processes, driven as a person would: through the command line only.

`Lab` owns every process it starts and ends each of them by its pid, whatever happened.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests.e2e.device import FOLDER, Device
from tests.e2e.processes import end, eventually, in_parallel
from tests.e2e.trees import Tree, assert_same_trees


def pair(host: Device, guest: Device, *, address: bool = True) -> None:
    """Pair two running devices by a one-time code, by a typed address or by discovery alone."""
    joined = guest.join(host.new_code(), address=host.address() if address else None)
    assert joined.code == 0, str(joined)
    eventually(
        lambda: host.is_connected_to(guest) and guest.is_connected_to(host),
        within=20,
        what=f"{host.name} and {guest.name} are connected after pairing",
    )


def converge(devices: Sequence[Device], *, within: float = 60.0, name: str = FOLDER) -> Tree:
    """Wait until all devices are idle, `wait` agrees on each, and their trees are equal.

    Returns the common tree. Raises AssertionError with what still differs.
    """
    deadline = time.monotonic() + within

    def at_rest() -> bool:
        left = max(1.0, deadline - time.monotonic())
        for result in in_parallel(lambda device: device.wait(left), devices):
            assert result.code == 0, str(result)
        for device in devices:
            row = device.folder(name)
            assert row["state"] == "idle", f"{device.name}: {row}"
        assert_same_trees({device.name: device.roots[name] for device in devices})
        return True

    eventually(at_rest, within=within, what="all devices hold the same tree and rest", every=0.1)
    return assert_same_trees({device.name: device.roots[name] for device in devices})


def everywhere(
    devices: Sequence[Device],
    path: str,
    content: bytes,
    *,
    within: float = 15,
    every: float = 0.05,
) -> None:
    """Wait until a file has this content on every device."""
    eventually(
        lambda: all(device.read(path) == content for device in devices),
        within=within,
        every=every,
        what=f"“{path}” is {content[:40]!r} on {', '.join(device.name for device in devices)}",
    )


class Lab:
    """The devices of one test, below one directory."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.devices: list[Device] = []
        self._cleanups = contextlib.ExitStack()

    def finally_(self, action: Callable[[], object]) -> None:
        """Run `action` when the lab is closed, the last one first."""
        self._cleanups.callback(action)

    def prepare(
        self, name: str, *, listen: str | None = "127.0.0.1:0", enter: Sequence[str] = ()
    ) -> Device:
        """A device that is initialised and not started. `listen=None` gives no address at all."""
        place = self.base / name
        place.mkdir(parents=True)
        device = Device(
            name=name,
            home=place / "home",
            root=place / "root",
            log=place / "daemon.log",
            enter=tuple(enter),
        )
        self.devices.append(device)
        where = () if listen is None else ("--listen", listen)
        device.ok("init", "--name", name, *where)
        return device

    def device(
        self, name: str, *, listen: str | None = "127.0.0.1:0", enter: Sequence[str] = ()
    ) -> Device:
        """A device whose daemon runs."""
        device = self.prepare(name, listen=listen, enter=enter)
        device.start()
        return device

    def group(self, *names: str, folder: str | None = FOLDER) -> list[Device]:
        """Running devices on loopback: all paired with the first, all sharing one folder."""
        devices = in_parallel(self.prepare, names)
        start_all(devices)
        host, *guests = devices
        for guest in guests:
            pair(host, guest)
        if folder is not None:
            in_parallel(lambda device: device.add_folder(folder), devices)
        return devices

    def close(self) -> None:
        """End everything that was started, by its pid, and remove what was written."""
        with self._cleanups:
            for device in self.devices:
                if device.process is not None:
                    end(device.process)
                    device.process = None

    def logs(self) -> Mapping[str, str]:
        return {device.name: device.log_text() for device in self.devices}


def stop_all(devices: Iterable[Device]) -> None:
    """End the daemons, all at once."""
    in_parallel(Device.stop, devices)


def start_all(devices: Iterable[Device]) -> None:
    """Start the daemons, all at once, and return when each answers."""
    listed = list(devices)
    for device in listed:
        device.launch()
    in_parallel(Device.wait_until_ready, listed)


def assert_sound_logs(logs: Mapping[str, str]) -> None:
    """A daemon never logs a traceback: every failure is a sentence."""
    for name, text in logs.items():
        at = text.find("Traceback (most recent call last)")
        assert at < 0, f"the daemon of {name} logged a traceback:\n{text[at : at + 4000]}"
        assert "never retrieved" not in text, f"{name} lost an exception:\n{text[-4000:]}"
