"""Flame graphs of a program's processes while it works, by py-spy."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.race.peers import Failed

_WRITING_S = 60.0
_RATE = 250
"""Looks a second: of a work of a second, enough to see what takes a hundredth."""


@dataclass(frozen=True, slots=True)
class Profiler:
    py_spy: Path
    directory: Path
    """For `WORK-author.svg` and `WORK-peer-N.svg`."""

    @contextlib.contextmanager
    def watch(self, work: str, processes: Sequence[Sequence[int]]) -> Iterator[None]:
        """Of what holds the interpreter meanwhile. Looking takes time too: what is measured in this
        block is no figure to compare."""
        names = [f"{work}-peer-{at}" if at else f"{work}-author" for at in range(len(processes))]
        watching = [
            self._look_at(pid, name)
            for name, pids in zip(names, processes, strict=True)
            for pid in pids
        ]
        try:
            yield
        finally:
            for each in watching:
                each.send_signal(signal.SIGINT)
            told = [each.communicate(timeout=_WRITING_S)[1] for each in watching]
        for each, why in zip(watching, told, strict=True):
            if each.returncode:
                raise Failed(f"py-spy: {why.strip()[:300]}")

    def _look_at(self, pid: int, name: str) -> subprocess.Popen[str]:
        record = [str(self.py_spy), "record", "--gil", "--threads", "--rate", str(_RATE)]
        to = ["--pid", str(pid), "--duration", "unlimited", "--output", f"{name}.svg"]
        return subprocess.Popen(
            record + to,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
