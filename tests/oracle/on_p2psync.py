"""p2psync: its real daemons, each on a host of its own where that can be, else on loopback."""

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2psync import __version__
from p2psync.errors import P2psyncError
from tests.e2e.device import FOLDER, Device
from tests.e2e.harness import Lab, pair, start_all
from tests.oracle.actions import Abilities
from tests.oracle.hub import Hub, has_hosts
from tests.oracle.run import device_name
from tests.oracle.settling import settled


class P2psync:
    name = "p2psync"
    version = __version__
    abilities = Abilities()

    def __init__(self, base: Path, devices: int) -> None:
        self._lab = Lab(base)
        self._frozen: set[int] = set()
        self._hub = Hub(devices) if has_hosts() else None
        try:
            self.devices = [self._prepare(number) for number in range(devices)]
            for device in self.devices:
                # Here more is deleted in a minute than people do, and nobody is there to approve.
                device.configure(delete_files=1_000_000)
            start_all(self.devices)
            host, *guests = self.devices
            for guest in guests:
                pair(host, guest)
            self.roots: Sequence[Path] = [device.add_folder(FOLDER) for device in self.devices]
        except BaseException:
            self.close()
            raise

    def _prepare(self, number: int) -> Device:
        if self._hub is None:
            return self._lab.prepare(device_name(number))
        listen = f"{self._hub.address(number)}:22000"
        host = self._hub.hosts[number]
        return self._lab.prepare(device_name(number), listen=listen, enter=host.enter)

    def is_private(self, path: str) -> bool:
        return path.partition("/")[0] == ".p2psync"

    def stop(self, device: int) -> None:
        self.devices[device].stop()

    def kill(self, device: int) -> None:
        self.devices[device].kill()

    def start(self, device: int) -> None:
        self.devices[device].start()

    def part(self, group: frozenset[int]) -> None:
        if self._hub is not None:
            self._hub.part(group)
            return
        for number in group:
            _process(self.devices[number]).send_signal(signal.SIGSTOP)
            self._frozen.add(number)

    def heal(self) -> None:
        if self._hub is not None:
            self._hub.heal()
        for number in self._frozen:
            _process(self.devices[number]).send_signal(signal.SIGCONT)
        self._frozen.clear()

    def breathe(self) -> None:
        pass

    def settle(self, within: float) -> str:
        return settled(self.roots, self.is_private, self._unrest, within=within, exact_times=True)

    def _unrest(self) -> str:
        for device in self.devices:
            with contextlib.suppress(P2psyncError):
                status = device.glance()
                row = next(row for row in status["folders"] if row["name"] == FOLDER)
                if row["state"] != "idle" or row["need_files"] or row["problems"]:
                    return f"{device.name} says {row}"
                peers = status["devices"]
                if len(peers) != len(self.devices) - 1:
                    return f"{device.name} knows {len(peers)} devices"
                for peer in peers:
                    needs = any(folder["need_files"] for folder in peer["folders"])
                    if needs or not peer["connected"]:
                        return f"{device.name} says {peer}"
                continue
            return f"{device.name} does not answer"
        return ""

    def logs(self) -> Mapping[str, str]:
        return self._lab.logs()

    def close(self) -> None:
        with contextlib.ExitStack() as last:
            if self._hub is not None:
                last.callback(self._hub.close)
            last.callback(self._lab.close)
            self.heal()


def _process(device: Device) -> subprocess.Popen[bytes]:
    assert device.process is not None
    return device.process
