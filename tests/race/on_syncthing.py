"""Syncthing as it is by default, but for what would lead out of the namespace."""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.e2e.processes import end, in_parallel
from tests.race.measuring import bytes_on_disk
from tests.race.peers import ADDRESS, Failed, Program, free_port
from tests.support import syncthing
from tests.support.syncthing import Node

_FOLDER = "race"


class Syncthing:
    def __init__(self, base: Path, devices: int, *, binary: Path) -> None:
        self._nodes: list[Node] = []
        for number in range(devices):
            where = f"{ADDRESS}:{free_port(ADDRESS)}"
            self._nodes.append(syncthing.generate(base / f"{number}", where, binary=binary))
        for node in self._nodes:
            node.configure(self._nodes, _FOLDER, options={}, attributes={}, of_folder={})
        self.roots: Sequence[Path] = [node.root for node in self._nodes]
        self._scans = [""] * devices
        """When each was looked through last, before it was stopped."""

    def begin(self) -> None:
        for node in self._nodes:
            node.launch()

    def rests(self, files: int) -> bool:
        for node in self._nodes:
            try:
                node.assert_runs()
            except RuntimeError as error:
                raise Failed(" ".join(f"{error}".split())[-300:]) from None
        with contextlib.suppress(OSError, ValueError, KeyError):  # not up yet
            return all(self._is_done(number, files) for number in range(len(self._nodes)))
        return False

    def _is_done(self, number: int, files: int) -> bool:
        node = self._nodes[number]
        row = node.ask(f"db/status?folder={_FOLDER}")
        if row["state"] != "idle" or row["needTotalItems"] or row["localFiles"] != files:
            return False
        # It is idle, too, before it begins to look at what changed while it did not run.
        if self._last_scan(number) == self._scans[number]:
            return False
        if number == 0:
            return True
        links = node.ask("system/connections")["connections"]
        return bool(links[self._nodes[0].device]["connected"])

    def _last_scan(self, number: int) -> str:
        return str(self._nodes[number].ask("stats/folder")[_FOLDER]["lastScan"])

    def processes(self) -> Sequence[Sequence[int]]:
        return [[node.process.pid] if node.process else [] for node in self._nodes]

    def sent_by_author(self) -> int | None:
        author = self._nodes[0]
        if author.process is None:
            return 0
        return int(author.ask("system/connections")["total"]["outBytesTotal"])

    def index_bytes(self) -> int | None:
        return bytes_on_disk(self._nodes[0].home)

    def stop(self) -> None:
        for number, node in enumerate(self._nodes):
            if node.process is not None:
                self._scans[number] = self._last_scan(number)
        self.close()

    def close(self) -> None:
        in_parallel(end, [node.process for node in self._nodes if node.process is not None])
        for node in self._nodes:
            node.process = None


def program(binary: Path) -> Program:
    return Program(
        "syncthing", "Syncthing", syncthing.version(binary), partial(Syncthing, binary=binary)
    )
