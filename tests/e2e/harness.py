"""Real daemons as separate processes, driven as a person would: through the command line only.

`Lab` owns every process it starts and ends each of them by its pid, whatever happened.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.e2e.trees import Tree, assert_same_trees

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = "shared"
"""Name of the folder in tests that need only one."""

READY_S = 20.0
COMMAND_S = 90.0
STOP_S = 15.0

T = TypeVar("T")
R = TypeVar("R")
Status = dict[str, Any]


def eventually(probe: Callable[[], T], *, within: float, what: str, every: float = 0.05) -> T:
    """Ask `probe` until its answer is true-ish and return that answer.

    A failing assertion inside `probe` counts as "not yet". Raises AssertionError with `what` and
    the last answer when `within` seconds have passed. This is the only place in the tests that
    waits by the clock.
    """
    deadline = time.monotonic() + within
    while True:
        said: object
        try:
            answer = probe()
            if answer:
                return answer
            said = answer
        except (AssertionError, FileNotFoundError) as error:
            said = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:g} s: {what}\nlast seen: {said}")
        time.sleep(every)


def in_parallel(action: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`action` on every item at once; results in order, the first failure raised."""
    listed = list(items)
    with ThreadPoolExecutor(max_workers=max(1, len(listed))) as pool:
        return list(pool.map(action, listed))


@dataclass(frozen=True, slots=True)
class Result:
    """How one command ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        shown = " ".join(self.arguments)
        return f"`p2psync {shown}` ended with {self.code}\nout: {self.out}\nerr: {self.err}"


def environment(home: Path) -> dict[str, str]:
    """The variables a process of ours gets: none that could lead out of the test's directory."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


def end(process: subprocess.Popen[Any]) -> None:
    """Make sure that a process of ours is gone: politely first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@dataclass(slots=True)
class PairingWindow:
    """A running `pair new`: its code, and afterwards how it ended."""

    process: subprocess.Popen[str]
    code: str
    expires_s: int

    def outcome(self, *, within: float = 30.0) -> Result:
        """Wait for the command to end."""
        out, err = self.process.communicate(timeout=within)
        return Result(("pair", "new", "--json"), self.process.returncode, out, err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        end(self.process)


@dataclass(slots=True)
class Device:
    """One home, its daemon, and the directories it shares."""

    name: str
    home: Path
    root: Path
    log: Path
    enter: tuple[str, ...] = ()
    """Words before the daemon's command, such as those that put it into a namespace."""
    process: subprocess.Popen[bytes] | None = None
    roots: dict[str, Path] = field(default_factory=dict)

    def command(self, *arguments: str | Path) -> list[str]:
        words = [sys.executable, "-m", "p2psync", "--home", str(self.home)]
        return [*words, *map(str, arguments)]

    def cli(self, *arguments: str | Path, stdin: str = "", timeout: float = COMMAND_S) -> Result:
        """Run one command to its end, whatever its exit code."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            env=environment(self.home.parent),
            cwd=self.home.parent,
            check=False,
        )
        return Result(tuple(map(str, arguments)), done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str | Path, stdin: str = "", timeout: float = COMMAND_S) -> Result:
        """Run one command that has to succeed."""
        result = self.cli(*arguments, stdin=stdin, timeout=timeout)
        assert result.code == 0, str(result)
        return result

    def status(self) -> Status:
        answer: Status = self.ok("status", "--json").json()
        return answer

    def folder(self, name: str = FOLDER) -> Status:
        """The row of one folder in the status."""
        for row in self.status()["folders"]:
            if row["name"] == name:
                found: Status = row
                return found
        raise AssertionError(f"{self.name} has no folder “{name}”")

    def peer(self, other: "Device | str") -> Status | None:
        """The row of another device in the status, or None."""
        name = other if isinstance(other, str) else other.name
        rows = [row for row in self.status()["devices"] if row["name"] == name]
        return rows[0] if rows else None

    def is_connected_to(self, other: "Device") -> bool:
        row = self.peer(other)
        return bool(row and row["connected"])

    def traffic(self) -> int:
        """Bytes on the wire in both directions since the daemon started."""
        total = self.status()["traffic"]
        return int(total["received"]) + int(total["sent"])

    def problems(self, name: str = FOLDER) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.folder(name)["problems"]
        return found

    def conflicts(self) -> list[dict[str, Any]]:
        answer = self.ok("conflicts", "list", "--json").json()
        found: list[dict[str, Any]] = answer["conflicts"] if isinstance(answer, dict) else answer
        return found

    def wait(self, timeout: float) -> Result:
        return self.cli("wait", "--timeout", f"{timeout:.0f}", timeout=timeout + 30)

    def launch(self) -> None:
        """Start the daemon without waiting for it."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        # The kernel ends a child with the *thread* that made it, so only the main one may.
        assert threading.current_thread() is threading.main_thread()
        words = [*self.enter, *self.command("daemon")]
        setpriv = shutil.which("setpriv")
        if setpriv:
            # Should the test run itself be killed, no daemon stays behind.
            words = [setpriv, "--pdeathsig", "KILL", *words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self.home.parent),
                cwd=self.home.parent,
            )

    def start(self) -> None:
        """Start the daemon and return when it answers."""
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        process = self.process
        assert process is not None

        def answers() -> bool:
            if process.poll() is not None:
                how = f"the daemon of {self.name} ended with {process.returncode}"
                raise RuntimeError(f"{how}:\n{self.log_text()[-3000:]}")
            return self.cli("status", "--json").code == 0

        eventually(answers, within=READY_S, what=f"the daemon of {self.name} answers")

    def stop(self) -> None:
        """End the daemon as an orderly shutdown does."""
        process = self.process
        if process is not None:
            asked = process.poll() is None
            end(process)
            self.process = None
            if asked:
                assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM), (
                    f"the daemon of {self.name} did not stop by itself: {process.returncode}"
                )

    def kill(self) -> None:
        """End the daemon as a power cut would: nothing gets a chance to clean up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def address(self) -> str:
        """Where the daemon listens, as one types it."""
        listen: list[str] = self.status()["listen"]
        return listen[0]

    def open_pairing(self, *arguments: str) -> PairingWindow:
        """`pair new --json`, returning when the code is known."""
        process = subprocess.Popen(
            self.command("pair", "new", "--json", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.home.parent),
            cwd=self.home.parent,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip():
            out, err = process.communicate(timeout=10)
            raise AssertionError(f"`pair new --json` showed no code: {out}{err}")
        shown = json.loads(line)
        return PairingWindow(process, shown["code"], shown["expires_s"])

    def join(self, code: str, *, address: str | None = None) -> Result:
        """`pair join`, with the code on standard input, as a person would type it."""
        where = () if address is None else ("--address", address)
        return self.cli("pair", "join", *where, stdin=f"{code}\n")

    def add_folder(self, name: str = FOLDER, *, root: Path | None = None) -> Path:
        place = root or self.root
        place.mkdir(parents=True, exist_ok=True)
        self.ok("folder", "add", place, "--name", name)
        self.roots[name] = place
        return place

    def write(self, path: str, content: bytes | str) -> Path:
        """Create or rewrite a file below the root, with the directories it needs."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def read(self, path: str) -> bytes | None:
        """The bytes at a path below the root, or None when no file is there."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None


def pair(host: Device, guest: Device, *, address: bool = True) -> None:
    """Pair two running devices by a one-time code, by a typed address or by discovery alone."""
    with host.open_pairing() as window:
        joined = guest.join(window.code, address=host.address() if address else None)
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


def everywhere(devices: Sequence[Device], path: str, content: bytes, *, within: float = 15) -> None:
    """Wait until a file has this content on every device."""
    for device in devices:
        eventually(
            lambda device=device: device.read(path) == content,  # type: ignore[misc]
            within=within,
            what=f"“{path}” on {device.name} is {content[:40]!r}",
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
