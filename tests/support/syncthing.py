"""Syncthing's nodes: what they are told so that they meet nobody but each other, and how they are
asked."""

import contextlib
import copy
import http.client
import json
import os
import shutil
import socket
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEBIANS = Path("/usr/bin/syncthing")

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "STNOUPGRADE": "1", "STMONITORED": "yes"}
"""The last one makes the daemon one process, so that to kill it is to kill all of it."""

ALONE = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "announceLANAddresses": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "crashReportingEnabled": "false",
    "urAccepted": "-1",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
}
"""The options that keep a node to itself."""


def is_installed(binary: Path = DEBIANS) -> bool:
    return os.access(binary, os.X_OK) and shutil.which("setpriv") is not None


def version(binary: Path = DEBIANS) -> str | None:
    """What `syncthing --version` says first, such as `v1.19.2-ds1`; None where there is none."""
    if not is_installed(binary):
        return None
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


@dataclass(slots=True)
class Node:
    """A home that is made and a root; its process once it was launched. Use `generate`."""

    home: Path
    root: Path
    address: str
    """Where others reach it, as `tcp://…`."""
    device: str
    key: str
    binary: Path = DEBIANS
    enter: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.home.parent.name

    @property
    def socket(self) -> Path:
        """Of the API: what is asked does not pass the network."""
        return self.home / "api"

    def configure(
        self,
        nodes: Iterable["Node"],
        folder: str,
        *,
        options: Mapping[str, str],
        attributes: Mapping[str, str],
        of_folder: Mapping[str, str],
    ) -> None:
        """Share the root with all `nodes`, of which this is one. `options` come on top of those
        that keep it to itself; `attributes` and `of_folder` (elements) are of the folder. What is
        not given is as Syncthing has it by default."""
        path = self.home / "config.xml"
        tree = ET.parse(path)
        config = tree.getroot()
        own, gui = config.find("options"), config.find("gui")
        assert own is not None
        assert gui is not None
        _set(own, {**ALONE, "listenAddress": self.address, **options})
        _set(gui, {"address": str(self.socket)})
        # What is missing in a folder or device is zero and not what a new one would have.
        new_folder, new_device = config.find("defaults/folder"), config.find("defaults/device")
        assert new_folder is not None
        assert new_device is not None
        for tag in ("device", "folder"):
            for generated in config.findall(tag):
                config.remove(generated)
        shared = copy.deepcopy(new_folder)
        shared.attrib.update({"id": folder, "label": folder, "path": str(self.root), **attributes})
        _set(shared, of_folder)
        for generated in shared.findall("device"):
            shared.remove(generated)
        for node in nodes:
            device = copy.deepcopy(new_device)
            device.attrib.update(id=node.device, name=node.name)
            _set(device, {"address": node.address})
            config.append(device)
            ET.SubElement(shared, "device", id=node.device)
        config.append(shared)
        tree.write(path)

    def launch(self) -> None:
        self.socket.unlink(missing_ok=True)
        words = [str(self.binary), "serve", f"--home={self.home}", "--no-browser", "--no-restart"]
        with (self.home.parent / "log").open("ab") as log:
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

    def assert_runs(self) -> None:
        """Raise RuntimeError, with its last words, if it was launched and has ended."""
        if self.process is not None and self.process.poll() is not None:
            last = (self.home.parent / "log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"syncthing ended: {last}")


def generate(
    place: Path, address: str, *, enter: tuple[str, ...] = (), binary: Path = DEBIANS
) -> Node:
    """A new node below `place` that shares nothing and knows nobody yet."""
    home, root = place / "home", place / "root"
    home.mkdir(parents=True)
    (root / ".stfolder").mkdir(parents=True)
    subprocess.run(
        [binary, "generate", f"--home={home}"],
        env={**_ENVIRONMENT, "HOME": str(home)},
        capture_output=True,
        check=True,
    )
    config = ET.parse(home / "config.xml").getroot()
    own = config.find("device")
    assert own is not None
    key = config.findtext("gui/apikey") or ""
    return Node(home, root, f"tcp://{address}", own.attrib["id"], key, binary, enter)


def _set(parent: ET.Element, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        found = parent.find(name)
        if found is None:
            found = ET.SubElement(parent, name)
        found.text = value
