"""Programs that run once and end: rsync, Unison and cp. A peer's run brings the author's state to
it. All peers run at once."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.processes import end, eventually
from tests.race.measuring import bytes_from_author, bytes_on_disk, is_listening
from tests.race.peers import SERVER, Failed, Program, free_port

_READY_S = 20.0
_LOOK_EVERY_S = 0.01
_CANNOT = frozenset({"edit", "idle"})


class Batch:
    """Subclasses say what to run; nothing is served unless they say so."""

    has_index = False

    def __init__(self, base: Path, devices: int) -> None:
        self.base = base
        self.roots: Sequence[Path] = [base / f"{number}" / "root" for number in range(devices)]
        for root in self.roots:
            root.mkdir(parents=True)
        self.port = free_port(SERVER)
        self._running: list[subprocess.Popen[bytes] | None] = [None] * devices

    def serve(self) -> list[str]:
        return []

    def fetch(self, device: int) -> list[str]:
        raise NotImplementedError

    def variables(self, device: int) -> Mapping[str, str]:
        return {}

    def begin(self) -> None:
        server = self.serve()
        if server:
            self._start(0, server)
            eventually(self._is_up, within=_READY_S, what="the server listens", every=_LOOK_EVERY_S)
        for device in range(1, len(self.roots)):
            self._start(device, self.fetch(device))

    def _is_up(self) -> bool:
        self._assert_served()
        return is_listening(self.port)

    def rests(self, files: int) -> bool:
        self._assert_served()
        ended = [process.poll() for process in self._running[1:] if process is not None]
        for device, code in enumerate(ended, start=1):
            if code:
                raise Failed(f"it ended with {code}: {self._last_words(device)}")
        return all(code == 0 for code in ended)

    def _assert_served(self) -> None:
        server = self._running[0]
        if server is not None and server.poll() is not None:
            raise Failed(f"its server ended with {server.returncode}: {self._last_words(0)}")

    def _start(self, device: int, words: Sequence[str]) -> None:
        setpriv = shutil.which("setpriv")
        tied = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        with self._log(device).open("wb") as log:
            self._running[device] = subprocess.Popen(
                [*tied, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": os.defpath,
                    "HOME": str(self.home(device)),
                    "LANG": "C.UTF-8",
                    **self.variables(device),
                },
            )

    def home(self, device: int) -> Path:
        return self.base / f"{device}"

    def _log(self, device: int) -> Path:
        return self.home(device) / "log"

    def _last_words(self, device: int) -> str:
        return " ".join(self._log(device).read_text(errors="replace").split())[-300:]

    def processes(self) -> Sequence[Sequence[int]]:
        return [
            [process.pid] if process and process.returncode is None else []
            for process in self._running
        ]

    def sent_by_author(self) -> int | None:
        return bytes_from_author()

    def index_bytes(self) -> int | None:
        return bytes_on_disk(self.home(0) / "index") if self.has_index else None

    def stop(self) -> None:
        for device, process in enumerate(self._running):
            if process is not None:
                end(process)
                self._running[device] = None

    def close(self) -> None:
        self.stop()


class Rsync(Batch):
    """The author's daemon, from which each peer pulls."""

    def __init__(self, base: Path, devices: int) -> None:
        super().__init__(base, devices)
        lines = ["use chroot = no", "log file = /dev/null"]
        # Otherwise it would read as nobody; who is not root cannot become anyone.
        lines += ["uid = 0", "gid = 0"] if os.geteuid() == 0 else []
        self._config = base / "rsyncd.conf"
        self._config.write_text("\n".join([*lines, "[tree]", f"path = {self.roots[0]}", ""]))

    def serve(self) -> list[str]:
        where = [f"--address={SERVER}", f"--port={self.port}"]
        return ["rsync", "--daemon", "--no-detach", f"--config={self._config}", *where]

    def fetch(self, device: int) -> list[str]:
        source = f"rsync://{SERVER}:{self.port}/tree/"
        return ["rsync", "-a", "--delete", source, f"{self.roots[device]}/"]


class Unison(Batch):
    """The author's server on a socket, with which each peer synchronizes."""

    has_index = True

    def variables(self, device: int) -> Mapping[str, str]:
        return {
            "UNISON": str(self.home(device) / "index"),
            "UNISONLOCALHOSTNAME": f"device-{device}",
        }

    def serve(self) -> list[str]:
        return ["unison", "-socket", f"{self.port}", "-listen", SERVER]

    def fetch(self, device: int) -> list[str]:
        source = f"socket://{SERVER}:{self.port}/{self.roots[0]}"
        how = ["-ui", "text", "-batch", "-silent", "-times"]
        return ["unison", str(self.roots[device]), source, *how]


class Copy(Batch):
    """What the disk can do: nobody is on another machine. Files that are there are left alone."""

    def fetch(self, device: int) -> list[str]:
        script = 'cp -a --update "$1/." "$2/" && sync --file-system "$2"'
        return ["sh", "-c", script, "copy", str(self.roots[0]), str(self.roots[device])]


def programs() -> list[Program]:
    known: list[tuple[str, str, list[str], int, type[Batch], frozenset[str]]] = [
        ("rsync", "rsync", ["rsync", "--version"], 2, Rsync, _CANNOT),
        ("unison", "Unison", ["unison", "-version"], 2, Unison, _CANNOT),
        ("cp", "cp", ["cp", "--version"], 3, Copy, _CANNOT | {"move"}),
    ]
    return [
        Program(name, title, _version(words, at), made, cannot, look_every_s=_LOOK_EVERY_S)
        for name, title, words, at, made, cannot in known
    ]


def _version(words: Sequence[str], at: int) -> str | None:
    """The word at that place of what a program says of itself; None where there is none."""
    if shutil.which(words[0]) is None:
        return None
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.split()[at]
