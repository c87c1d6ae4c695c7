"""Two Syncthing nodes on loopback that talk to each other and to nobody else."""

import json
import shutil
import socket
import subprocess
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "bench"

_OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "startBrowser": "false",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "announceLANAddresses": "false",
    # Both start at once: whoever dials too early tries again soon.
    "reconnectionIntervalS": "5",
    "setLowPriority": "false",
}


@dataclass(slots=True)
class Node:
    """One node: its directories, its ports, and its process once it runs."""

    home: Path
    root: Path
    sync_port: int
    api_port: int
    device: str = ""
    key: str = ""
    process: subprocess.Popen[bytes] | None = None

    def launch(self) -> subprocess.Popen[bytes]:
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["syncthing", "serve", f"--home={self.home}", "--no-browser", "--no-restart"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "STNOUPGRADE": "1"},
            )
        return self.process

    def is_done(self, files: int, size: int) -> bool:
        """Whether the node is idle, holds that many files and bytes, and needs nothing."""
        try:
            row = self._ask(f"db/status?folder={FOLDER}")
        except (OSError, ValueError):
            return False
        return bool(
            row["state"] == "idle"
            and row["needBytes"] == row["needFiles"] == 0
            and row["localFiles"] == files
            and row["localBytes"] >= size
        )

    def _ask(self, question: str) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api_port}/rest/{question}", headers={"X-API-Key": self.key}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def version() -> str | None:
    """What `syncthing --version` calls itself, or None where there is none."""
    if shutil.which("syncthing") is None:
        return None
    done = subprocess.run(["syncthing", "--version"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split()[:2])


def make_pair(base: Path) -> list[Node]:
    """Two nodes that know each other and share one folder; nothing runs yet."""
    ports = _free_ports(4)
    nodes = [
        Node(base / name / "home", base / name / "root", ports[2 * at], ports[2 * at + 1])
        for at, name in enumerate(("a", "b"))
    ]
    for node in nodes:
        node.home.mkdir(parents=True)
        (node.root / ".stfolder").mkdir(parents=True)
        subprocess.run(
            ["syncthing", "generate", f"--home={node.home}", "--no-default-folder"],
            env={"HOME": str(node.home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=True,
        )
        config = ET.parse(node.home / "config.xml").getroot()
        device, key = config.find("device"), config.findtext("gui/apikey")
        assert device is not None
        assert key is not None
        node.device, node.key = device.attrib["id"], key
    members = [
        (node.device, node.home.parent.name, f"tcp://127.0.0.1:{node.sync_port}") for node in nodes
    ]
    for node, (_, _, address) in zip(nodes, members, strict=True):
        write_config(
            node.home,
            root=node.root,
            options={"listenAddress": address},
            api=f"127.0.0.1:{node.api_port}",
            folder=FOLDER,
            watcher_delay_s=10,
            members=members,
        )
    return nodes


def write_config(
    home: Path,
    *,
    root: Path,
    options: Mapping[str, str],
    api: str,
    folder: str,
    watcher_delay_s: int,
    members: Iterable[tuple[str, str, str]],
    of_folder: Mapping[str, str] | None = None,
) -> None:
    """Make what Syncthing generated in `home` the settings of a node that shares `root` with
    `members` (device ID, name, address) and meets nobody else. `options` come on top of those that
    keep it to itself; `of_folder`: elements of the folder."""
    path = home / "config.xml"
    tree = ET.parse(path)
    config = tree.getroot()
    found, gui, own = config.find("options"), config.find("gui"), config.find("device")
    assert found is not None
    assert gui is not None
    assert own is not None
    for name, value in {**_OPTIONS, **options}.items():
        _set(found, name, value)
    _set(gui, "address", api)
    config.remove(own)
    shared = ET.SubElement(
        config,
        "folder",
        id=folder,
        label=folder,
        path=str(root),
        type="sendreceive",
        rescanIntervalS="3600",
        fsWatcherEnabled="true",
        fsWatcherDelayS=str(watcher_delay_s),
    )
    for name, value in (of_folder or {}).items():
        ET.SubElement(shared, name).text = value
    for member, name, address in members:
        device = ET.SubElement(config, "device", id=member, name=name)
        ET.SubElement(device, "address").text = address
        ET.SubElement(shared, "device", id=member)
    tree.write(path)


def _set(parent: ET.Element, name: str, value: str) -> None:
    found = parent.find(name)
    if found is None:
        found = ET.SubElement(parent, name)
    found.text = value


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
