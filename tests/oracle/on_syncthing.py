"""Syncthing as Debian packages it: daemons that talk to each other only, each on a host of its own
where that can be, else on loopback."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.processes import end, eventually
from tests.oracle.actions import Abilities
from tests.oracle.hub import Hub, has_hosts
from tests.oracle.run import device_name
from tests.oracle.settling import settled
from tests.support import syncthing
from tests.support.syncthing import Node

_FOLDER = "check"
_READY_S = 40.0
_RESCAN_EVERY_S = 3.0
_OPTIONS = {"reconnectionIntervalS": "2", "setLowPriority": "false"}
_ATTRIBUTES = {"fsWatcherDelayS": "1"}
_OF_FOLDER = {"maxConflicts": "-1"}


class Syncthing:
    name = "syncthing"
    abilities = Abilities()

    def __init__(self, base: Path, devices: int) -> None:
        version = syncthing.version()
        assert version is not None
        self.version = version
        self._hub = Hub(devices) if has_hosts() else None
        self._frozen: set[int] = set()
        self._nodes: list[Node] = []
        try:
            for number in range(devices):
                self._nodes.append(self._generate(base / device_name(number), number))
            for node in self._nodes:
                node.configure(
                    self._nodes,
                    _FOLDER,
                    options=_OPTIONS,
                    attributes=_ATTRIBUTES,
                    of_folder=_OF_FOLDER,
                )
                node.launch()
            self.roots: Sequence[Path] = [node.root for node in self._nodes]
            for node in self._nodes:
                _wait_until_up(node)
        except BaseException:
            self.close()
            raise

    def _generate(self, place: Path, number: int) -> Node:
        if self._hub is not None:
            address, enter = f"{self._hub.address(number)}:22000", self._hub.hosts[number].enter
        else:
            with socket.create_server(("127.0.0.1", 0)) as held:
                address, enter = f"127.0.0.1:{held.getsockname()[1]}", ()
        return syncthing.generate(place, address, enter=enter)

    def is_private(self, path: str) -> bool:
        top, name = path.partition("/")[0], path.rpartition("/")[2]
        if top in (".stfolder", ".stversions", ".stignore"):
            return True
        return name.startswith((".syncthing.", "~syncthing~")) and name.endswith(".tmp")

    def stop(self, device: int) -> None:
        process = self._process(device)
        end(process)

    def kill(self, device: int) -> None:
        process = self._process(device)
        process.kill()
        process.wait()

    def start(self, device: int) -> None:
        node = self._nodes[device]
        node.launch()
        _wait_until_up(node)

    def part(self, group: frozenset[int]) -> None:
        if self._hub is not None:
            self._hub.part(group)
            return
        for number in group:
            self._process(number).send_signal(signal.SIGSTOP)
            self._frozen.add(number)

    def heal(self) -> None:
        if self._hub is not None:
            self._hub.heal()
        for number in self._frozen:
            self._process(number).send_signal(signal.SIGCONT)
        self._frozen.clear()

    def breathe(self) -> None:
        pass

    def settle(self, within: float) -> str:
        # Its watcher tells of deletions only after a minute: have all looked through at once.
        asked = 0.0

        def unrest() -> str:
            nonlocal asked
            if time.monotonic() - asked > _RESCAN_EVERY_S:
                asked = time.monotonic()
                for node in self._nodes:
                    with contextlib.suppress(OSError, ValueError):
                        node.ask(f"db/scan?folder={_FOLDER}", method="POST")
            return self._unrest()

        return settled(self.roots, self.is_private, unrest, within=within)

    def _unrest(self) -> str:
        for number, node in enumerate(self._nodes):
            try:
                row = node.ask(f"db/status?folder={_FOLDER}")
                links = node.ask("system/connections")["connections"]
            except (OSError, ValueError) as error:
                return f"{device_name(number)} does not answer: {error}"
            if row["state"] != "idle" or row["needTotalItems"] or row["errors"]:
                named = {key: row[key] for key in ("state", "needTotalItems", "errors")}
                return f"{device_name(number)} says {named}"
            if not all(link["connected"] for name, link in links.items() if name != node.device):
                return f"{device_name(number)} is not connected to all"
        return ""

    def _process(self, device: int) -> subprocess.Popen[bytes]:
        process = self._nodes[device].process
        assert process is not None
        return process

    def close(self) -> None:
        with contextlib.ExitStack() as last:
            if self._hub is not None:
                last.callback(self._hub.close)
            for node in self._nodes:
                if node.process is not None:
                    last.callback(end, node.process)
            self.heal()


def _wait_until_up(node: Node) -> None:
    def is_up() -> bool:
        node.assert_runs()
        with contextlib.suppress(OSError, ValueError):
            return bool(node.ask("system/status").get("myID"))
        return False

    eventually(is_up, within=_READY_S, what="syncthing answers")
