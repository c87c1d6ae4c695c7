"""Synchronizers that run to an end over two directories: all devices in a star around the first.

While the users are at work, one run after the other goes on in the background; a device that is
stopped or parted from the first one is left out, and a device that is killed takes the run with it.
"""

import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.processes import end
from tests.oracle.actions import Abilities
from tests.oracle.run import device_name
from tests.oracle.settling import settled
from tests.oracle.tree import read_tree

_RUN_S = 120.0


class Batches(ABC):
    name: str
    version: str
    abilities: Abilities

    def __init__(self, base: Path, devices: int) -> None:
        self.roots: Sequence[Path] = [base / device_name(number) for number in range(devices)]
        self._state = base / "state"
        self._state.mkdir()
        for root in self.roots:
            root.mkdir()
        self._down: set[int] = set()
        self._group: frozenset[int] = frozenset()
        self._turn = 0
        self._running: tuple[int, subprocess.Popen[bytes]] | None = None
        self._trouble = ""

    @abstractmethod
    def is_private(self, path: str) -> bool: ...

    @abstractmethod
    def command(self, device: int) -> list[str]:
        """How the first device and this one are synchronized."""

    @abstractmethod
    def judge_end(self, device: int, code: int) -> str:
        """What a run that ended with this code leaves to be done; an empty word if nothing."""

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._state)}

    def stop(self, device: int) -> None:
        self._finish()
        self._down.add(device)

    def kill(self, device: int) -> None:
        if self._running is not None and device in (0, self._running[0]):
            process = self._running[1]
            process.kill()
            process.wait()
            self._running = None
        self._down.add(device)

    def start(self, device: int) -> None:
        self._down.discard(device)

    def part(self, group: frozenset[int]) -> None:
        self._finish()
        self._group = group

    def heal(self) -> None:
        self._group = frozenset()

    def breathe(self) -> None:
        """Begin the next run if none is going on."""
        if self._running is not None:
            if self._running[1].poll() is None:
                return
            self._finish()
        for _ in self.roots[1:]:
            self._turn = self._turn % (len(self.roots) - 1) + 1
            parted = (0 in self._group) != (self._turn in self._group)
            if not parted and not self._down & {0, self._turn}:
                self._begin(self._turn)
                return

    def _begin(self, device: int) -> None:
        words = ["setpriv", "--pdeathsig", "KILL", *self.command(device)]
        with (self._state / "log").open("ab") as log:
            log.write(f"\n$ {' '.join(words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self._state,
            )
        self._running = device, process

    def _finish(self) -> None:
        if self._running is not None:
            device, process = self._running
            process.wait(_RUN_S)
            self._running = None
            self._trouble = self.judge_end(device, process.returncode)

    def settle(self, within: float) -> str:
        def unrest() -> str:
            self._finish()
            before = [read_tree(root, self.is_private) for root in self.roots]
            trouble = ""
            for device in range(1, len(self.roots)):
                self._begin(device)
                self._finish()
                trouble = trouble or self._trouble
            after = [read_tree(root, self.is_private) for root in self.roots]
            return trouble or ("" if before == after else "the last run still changed something")

        return settled(self.roots, self.is_private, unrest, within=within)

    def close(self) -> None:
        if self._running is not None:
            end(self._running[1])


class Unison(Batches):
    """Of two versions the newer keeps the name, and a copy is made of the other."""

    name = "unison"
    abilities = Abilities()

    def __init__(self, base: Path, devices: int) -> None:
        super().__init__(base, devices)
        said = subprocess.run(["unison", "-version"], capture_output=True, text=True, check=True)
        self.version = said.stdout.split()[2]

    def is_private(self, path: str) -> bool:
        return path.rpartition("/")[2].startswith(".unison.")

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "UNISON": str(self._state), "TERM": "dumb"}

    def command(self, device: int) -> list[str]:
        roots = (str(self.roots[0]), str(self.roots[device]))
        options = "-batch -auto -times -prefer newer -copyonconflict -confirmbigdel=false"
        # Its quick look misses edits that keep size, inode and second; its manual tells this cure.
        options += " -fastcheck false"
        # A run that was killed leaves its lock behind; no two runs go on at once here.
        return ["unison", *roots, *options.split(), "-ignorelocks", "-ui", "text"]

    def judge_end(self, device: int, code: int) -> str:
        # 1: something was skipped, because it changed meanwhile; 2: something failed.
        return f"a run for {device_name(device)} ended with {code}" if code else ""


class Rclone(Batches):
    """`rclone bisync`: of two versions both get another name. Neither links nor modes, and no
    empty directories."""

    name = "rclone"
    abilities = Abilities(links=False, modes=False, empty_directories=False)

    def __init__(self, base: Path, devices: int) -> None:
        super().__init__(base, devices)
        said = subprocess.run(["rclone", "version"], capture_output=True, text=True, check=True)
        self.version = said.stdout.split()[1]
        self._anew = set(range(1, devices))

    def is_private(self, path: str) -> bool:
        return bool(re.search(r"\.[0-9a-f]{8}\.partial$", path))

    def command(self, device: int) -> list[str]:
        roots = (str(self.roots[0]), str(self.roots[device]))
        place = ("--workdir", str(self._state / f"work-{device}"), "--config", os.devnull)
        again = ["--resync"] if device in self._anew else []
        return ["rclone", "bisync", *roots, *place, "--force", "--checksum", *again]

    def judge_end(self, device: int, code: int) -> str:
        # After a failure it wants `--resync`, and says so.
        if code:
            self._anew.add(device)
            return f"a run for {device_name(device)} ended with {code}"
        self._anew.discard(device)
        return ""


def has(name: str) -> bool:
    return shutil.which(name) is not None
