"""What processes take while they work: memory, descriptors, threads, tasks."""

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.oracle.growth import Reading
from tests.support.beside import Beside

_EVERY_S = 1.0
_LOOKS = 4
_BETWEEN_LOOKS_S = 0.1
_STATUS = re.compile(r"^(VmRSS|Threads):\s+(\d+)", re.MULTILINE)

ProcessOf = Callable[[], int | None]
"""The process of a device; None while it has none."""


@dataclass(slots=True)
class Life:
    """One process of a device, from its start to its end."""

    device: str
    pid: int
    rests: list[Reading] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    """The highest that was seen of memory, descriptors and threads, at work and at rest."""

    @property
    def seconds(self) -> float:
        return self.rests[-1].at - self.rests[0].at if self.rests else 0.0


def look(pid: int) -> tuple[int, int, int] | None:
    """Resident bytes, descriptors and threads of a process; None if there is no such."""
    try:
        status = dict(_STATUS.findall(Path(f"/proc/{pid}/status").read_text()))
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    if "VmRSS" not in status:
        # It has ended, and nobody has asked yet how.
        return None
    return int(status["VmRSS"]) * 1024, descriptors, int(status["Threads"])


class Gauges(Beside):
    """Inside a `with` block a thread reads all devices every second, into `record` and for the
    peaks; `rest` reads what the verdict is on."""

    def __init__(self, devices: Mapping[str, ProcessOf], record: Path) -> None:
        super().__init__()
        self.lives: dict[tuple[str, int], Life] = {}
        self._devices = devices
        self._record = record.open("w", buffering=1)
        self._record.write("second,device,process,memory,descriptors,threads,tasks,pooled\n")
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._record.close()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def rest(self, device: str, tasks: int, pooled: int) -> None:
        """Read a device that is at rest and has so many tasks, and so many threads in its pool. Of
        some looks one after the other the lowest counts, because a connection that has just been
        answered may still be open."""
        pid = self._devices[device]()
        if pid is None:
            return
        looks = []
        for _ in range(_LOOKS):
            if (seen := look(pid)) is not None:
                looks.append(seen)
            self._stop.wait(_BETWEEN_LOOKS_S)
        if looks:
            memory, descriptors, threads = map(min, zip(*looks, strict=True))
            reading = Reading(self.seconds, memory, descriptors, threads - pooled, tasks)
            with self._lock:
                self._life(device, pid, looks[-1]).rests.append(reading)
            self._write(device, pid, looks[-1], str(tasks), str(pooled))

    def longest(self) -> list[Life]:
        """For each device the process that lived longest."""
        return [
            max((life for life in self.lives.values() if life.device == name), key=_seconds)
            for name in self._devices
            if any(life.device == name for life in self.lives.values())
        ]

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            for device, process_of in self._devices.items():
                pid = process_of()
                if pid is not None and (seen := look(pid)) is not None:
                    with self._lock:
                        self._life(device, pid, seen)
                    self._write(device, pid, seen)

    def _life(self, device: str, pid: int, seen: tuple[int, int, int]) -> Life:
        life = self.lives.setdefault((device, pid), Life(device, pid))
        for name, value in zip(("memory", "descriptors", "threads"), seen, strict=True):
            life.peaks[name] = max(life.peaks.get(name, 0), value)
        return life

    def _write(self, device: str, pid: int, seen: tuple[int, int, int], *told: str) -> None:
        row = (f"{self.seconds:.1f}", device, pid, *seen, *(told or ("", "")))
        self._record.write(",".join(map(str, row)) + "\n")


def _seconds(life: Life) -> float:
    return life.seconds
