"""p2psync as it is by default, on the loopback."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from p2psync import __version__
from p2psync.errors import P2psyncError
from tests.e2e.device import FOLDER
from tests.e2e.harness import Lab, pair, start_all, stop_all
from tests.e2e.processes import eventually, in_parallel
from tests.race.measuring import bytes_on_disk
from tests.race.peers import ADDRESS, Failed, Program

_CONNECTED_S = 60.0


class P2psync:
    def __init__(self, base: Path, devices: int) -> None:
        self._lab = Lab(base)
        try:
            self._devices = [
                self._lab.prepare(f"{number}", listen=f"{ADDRESS}:0") for number in range(devices)
            ]
            start_all(self._devices)
            author, *others = self._devices
            for other in others:
                pair(author, other)
            in_parallel(lambda device: device.add_folder(), self._devices)
            for one, other in itertools.permutations(self._devices, 2):
                eventually(
                    lambda one=one, other=other: one.is_connected_to(other),  # type: ignore[misc]
                    within=_CONNECTED_S,
                    what="all know each other",
                )
            stop_all(self._devices)
        except BaseException:
            self.close()
            raise
        self.roots: Sequence[Path] = [device.root for device in self._devices]

    def begin(self) -> None:
        for device in self._devices:
            device.launch()

    def rests(self, files: int) -> bool:
        for device in self._devices:
            if device.process is None or device.process.poll() is not None:
                raise Failed(f"a daemon ended: {device.log_text()[-300:]}")
        with contextlib.suppress(P2psyncError):  # not up yet
            return all(self._is_done(number, files) for number in range(len(self._devices)))
        return False

    def _is_done(self, number: int, files: int) -> bool:
        told = self._devices[number].glance()
        row = next(row for row in told["folders"] if row["name"] == FOLDER)
        if row["state"] != "idle" or row["need_files"] or row["files"] != files:
            return False
        author = self._devices[0].name
        links = {peer["name"]: peer["connected"] for peer in told["devices"]}
        return number == 0 or bool(links[author])

    def processes(self) -> Sequence[Sequence[int]]:
        return [[device.process.pid] if device.process else [] for device in self._devices]

    def sent_by_author(self) -> int | None:
        author = self._devices[0]
        return int(author.glance()["traffic"]["sent"]) if author.process else 0

    def index_bytes(self) -> int | None:
        return bytes_on_disk(self._devices[0].home)

    def stop(self) -> None:
        stop_all(self._devices)

    def close(self) -> None:
        self._lab.close()


def program() -> Program:
    return Program("p2psync", "p2psync", __version__, P2psync)
