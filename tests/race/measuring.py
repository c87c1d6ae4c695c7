"""What the system counts: time, bytes on the loopback, the work and the memory of processes."""

import json
import os
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
TABLE, COUNTER = "race", "author"
"""Of nftables: counts what leaves the author's address, where the namespace is ours."""


class Meter:
    """Counts from its making on. Memory is that of the largest process of each device."""

    def __init__(self, running: Sequence[Sequence[int]]) -> None:
        """`running`: what was started before, and whose work until now does not count."""
        self._peaks = [0.0] * len(running)
        self._wire = bytes_on_loopback()
        self._cpu = _cpu_of_ended() + _cpu_of_all(running)
        self._began = time.monotonic()

    def look(self, running: Sequence[Sequence[int]]) -> None:
        """Note how large processes are that may have ended by the next look."""
        for device, pids in enumerate(running):
            for root in pids:
                for pid in process_tree(root):
                    self._peaks[device] = max(self._peaks[device], _peak_mib(pid))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def wire(self) -> int:
        return bytes_on_loopback() - self._wire

    def cpu_s(self, running: Sequence[Sequence[int]]) -> float:
        """Of what runs and of what has ended."""
        return max(0.0, _cpu_of_ended() + _cpu_of_all(running) - self._cpu)

    @property
    def peaks_mib(self) -> tuple[float, ...]:
        return tuple(self._peaks)


def bytes_on_loopback() -> int:
    """Each byte that was sent on it, headers included, counts once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    return 0


def bytes_from_author() -> int | None:
    """What has left the author's address, if it is counted here."""
    words = ["nft", "--json", "list", "counter", "inet", TABLE, COUNTER]
    try:
        done = subprocess.run(words, capture_output=True, check=True)
        found = json.loads(done.stdout)["nftables"]
    except (OSError, subprocess.CalledProcessError):
        return None
    return sum(int(row["counter"]["bytes"]) for row in found if "counter" in row)


def bytes_on_disk(place: Path) -> int:
    """What a directory and all below take; what goes away meanwhile is passed over."""
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def is_listening(port: int) -> bool:
    """Whether anyone does, without a byte on the wire."""
    wanted = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[1].endswith(wanted):
                return True
    return False


def process_tree(pid: int) -> list[int]:
    """`pid` and its descendants; those that are gone are left out."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += process_tree(int(child))
    return found


def _cpu_of_ended() -> float:
    """Of all processes that this one started, with their descendants, and whose end it knows."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_of_all(running: Sequence[Sequence[int]]) -> float:
    roots = (root for pids in running for root in pids)
    return sum(_cpu_seconds(pid) for root in roots for pid in process_tree(root))


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # utime, stime, cutime, cstime: fields 14 to 17, of which three went before.
    return sum(map(int, fields[11:15])) / _TICKS


def _peak_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    _, _, after = status.partition("VmHWM:")
    return int(after.split()[0]) / 1024 if after else 0.0
