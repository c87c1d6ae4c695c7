"""Syncthing as Debian packages it: daemons that talk to each other only, each on a host of its own
where that can be, else on loopback."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import bench_syncthing
from tests.e2e.processes import end, eventually
from tests.oracle.actions import Abilities
from tests.oracle.hub import Hub, has_hosts
from tests.oracle.run import device_name
from tests.oracle.settling import settled

_FOLDER = "check"
_READY_S = 40.0
_RESCAN_EVERY_S = 3.0
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "STNOUPGRADE": "1", "STMONITORED": "yes"}
"""The last one makes the daemon one process, so that to kill it is to kill all of it."""


@dataclass(slots=True)
class _Node:
    home: Path
    root: Path
    address: str
    enter: tuple[str, ...]
    device: str = ""
    key: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.home / "api"

    def launch(self) -> None:
        self.socket.unlink(missing_ok=True)
        words = ["syncthing", "serve", f"--home={self.home}", "--no-browser", "--no-restart"]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.enter, "setpriv", "--pdeathsig", "KILL", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_ENVIRONMENT, "HOME": str(self.home)},
            )

    def ask(self, question: str, *, method: str = "GET") -> dict[str, Any]:
        """Raises OSError or ValueError."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        with contextlib.closing(connection):
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(10)
            connection.sock.connect(str(self.socket))
            try:
                connection.request(method, f"/rest/{question}", headers={"X-API-Key": self.key})
                answer = connection.getresponse().read()
            except http.client.HTTPException as error:
                raise ValueError(str(error)) from error
        found: dict[str, Any] = json.loads(answer) if answer.strip() else {}
        return found

    def is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"syncthing ended: {(self.home / 'log').read_text()[-2000:]}")
        with contextlib.suppress(OSError, ValueError):
            return bool(self.ask("system/status").get("myID"))
        return False


class Syncthing:
    name = "syncthing"
    abilities = Abilities()

    def __init__(self, base: Path, devices: int) -> None:
        version = bench_syncthing.version()
        assert version is not None
        self.version = version.split()[-1]
        self._hub = Hub(devices) if has_hosts() else None
        self._frozen: set[int] = set()
        self._nodes: list[_Node] = []
        try:
            for number in range(devices):
                self._nodes.append(self._generate(base / device_name(number), number))
            for node in self._nodes:
                _configure(node, self._nodes)
                node.launch()
            self.roots: Sequence[Path] = [node.root for node in self._nodes]
            for node in self._nodes:
                eventually(node.is_up, within=_READY_S, what="syncthing answers")
        except BaseException:
            self.close()
            raise

    def _generate(self, place: Path, number: int) -> _Node:
        if self._hub is not None:
            address, enter = f"{self._hub.address(number)}:22000", self._hub.hosts[number].enter
        else:
            with socket.create_server(("127.0.0.1", 0)) as held:
                address, enter = f"127.0.0.1:{held.getsockname()[1]}", ()
        node = _Node(place / "home", place / "root", f"tcp://{address}", enter)
        node.home.mkdir(parents=True)
        (node.root / ".stfolder").mkdir(parents=True)
        subprocess.run(
            ["syncthing", "generate", f"--home={node.home}", "--no-default-folder"],
            env={**_ENVIRONMENT, "HOME": str(node.home)},
            capture_output=True,
            check=True,
        )
        config = ET.parse(node.home / "config.xml").getroot()
        node.device = config.find("device").attrib["id"]  # type: ignore[union-attr]
        node.key = config.findtext("gui/apikey") or ""
        return node

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
        eventually(node.is_up, within=_READY_S, what="syncthing answers")

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


def is_installed() -> bool:
    return shutil.which("syncthing") is not None


def _configure(node: _Node, nodes: Sequence[_Node]) -> None:
    """As the benchmark's pair, for any number and with a quick watcher."""
    bench_syncthing.write_config(
        node.home,
        root=node.root,
        options={"listenAddress": node.address, "reconnectionIntervalS": "2"},
        api=str(node.socket),
        folder=_FOLDER,
        watcher_delay_s=1,
        members=[(each.device, each.home.parent.name, each.address) for each in nodes],
        of_folder={"maxConflicts": "-1"},
    )
