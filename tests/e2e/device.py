"""One device: its home, its daemon, and the command line by which everything is asked of it."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from p2psync.cli.client import ControlClient
from p2psync.errors import NotRunningError
from tests.e2e.processes import Result, end, environment, eventually

FOLDER = "shared"
"""Name of the folder in tests that need only one."""

CODE = re.compile(r"[0-9]+(-[a-z]+){3}")
"""What a one-time code looks like."""

WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
"""Root that is bound by permissions like everyone."""

READY_S = 20.0
COMMAND_S = 90.0

Status = dict[str, Any]


@dataclass(slots=True)
class PairingWindow:
    """A `pair new` that shows its code and waits, as a person sees it."""

    process: subprocess.Popen[str]
    code: str

    def outcome(self, *, within: float = 30.0) -> Result:
        """Wait for the command to end. Its output is what it said after the code."""
        out, err = self.process.communicate(timeout=within)
        return Result(("pair", "new"), self.process.returncode, out, err)

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

    def configure(self, **settings: int) -> None:
        """Change settings of the config file, each by its name alone."""
        path = self.home / "config.toml"
        text = path.read_text()
        for key, value in settings.items():
            text, changed = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
            assert changed, f"the config file has no setting “{key}”"
        path.write_text(text)

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

    def glance(self) -> Status:
        """What `status --json` prints, by the same client but without starting a process: for
        looking many times a second."""
        return ControlClient(self.home).call("status")

    def folder(self, name: str = FOLDER) -> Status:
        """The row of one folder in the status."""
        for row in self.glance()["folders"]:
            if row["name"] == name:
                found: Status = row
                return found
        raise AssertionError(f"{self.name} has no folder “{name}”")

    def peer(self, other: "Device | str") -> Status | None:
        """The row of another device in the status, or None."""
        name = other if isinstance(other, str) else other.name
        rows = [row for row in self.glance()["devices"] if row["name"] == name]
        return rows[0] if rows else None

    def is_connected_to(self, other: "Device") -> bool:
        row = self.peer(other)
        return bool(row and row["connected"])

    def traffic(self) -> int:
        """Bytes on the wire in both directions since the daemon started."""
        total = self.glance()["traffic"]
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

    def launch(self, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start the daemon without waiting for it, with more environment variables if need be."""
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
                env=environment(self.home.parent) | dict(variables),
                cwd=self.home.parent,
            )

    def start(self, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start the daemon and return when it answers."""
        self.launch(variables)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        process = self.process
        assert process is not None

        def answers() -> bool:
            if process.poll() is not None:
                how = f"the daemon of {self.name} ended with {process.returncode}"
                raise RuntimeError(f"{how}:\n{self.log_text()[-3000:]}")
            try:
                self.glance()
            except NotRunningError:
                return False
            return True

        eventually(answers, within=READY_S, what=f"the daemon of {self.name} answers", every=0.02)

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
        listen: list[str] = self.glance()["listen"]
        return listen[0]

    def new_code(self) -> str:
        """A one-time code; the window stays open."""
        shown = self.ok("pair", "new", "--json").json()
        assert shown["expires_s"] > 0
        return str(shown["code"])

    def open_pairing(self) -> PairingWindow:
        """`pair new` as a person runs it, returning when the code is shown."""
        process = subprocess.Popen(
            self.command("pair", "new"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.home.parent),
            cwd=self.home.parent,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if code := CODE.fullmatch(line.strip()):
                return PairingWindow(process, code[0])
        out, err = process.communicate(timeout=10)
        raise AssertionError(f"`pair new` showed no code: {out}{err}")

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
