"""What a race found, as it is written to a file and read again."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import DecodeError, Struct, ValidationError, json

N = TypeVar("N", int, float)


class Figures(Struct, frozen=True, forbid_unknown_fields=True):
    """How one program did one work. Of the edits `seconds` is the median and `longest_s` the
    longest; `peaks_mib` has a number for each device, the author's first."""

    seconds: float
    wire: int
    cpu_s: float
    peaks_mib: tuple[float, ...]
    sent_by_author: int | None = None
    index: int | None = None
    longest_s: float | None = None

    @property
    def peak_mib(self) -> float:
        return max(self.peaks_mib)


class Result(Struct, frozen=True, forbid_unknown_fields=True):
    """One program at one work: its runs, or why it did not end one of them."""

    runs: tuple[Figures, ...] = ()
    failed: str | None = None

    @property
    def median(self) -> Figures | None:
        """Of each figure by itself; None if it failed."""
        return median(self.runs) if self.runs and self.failed is None else None


class WorkDone(Struct, frozen=True, forbid_unknown_fields=True):
    """A program that cannot do the work has no result."""

    name: str
    title: str
    results: dict[str, Result]
    is_timed: bool = True
    """Whether its seconds tell anything: it does not go on for a given time."""


class Contender(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str
    version: str


class Machine(Struct, frozen=True, forbid_unknown_fields=True):
    kernel: str
    processor: str
    cores: int
    memory_gib: int
    file_system: str
    python: str
    load: float
    """Of the minute before the race."""


class Race(Struct, frozen=True, forbid_unknown_fields=True):
    machine: Machine
    repeat: int
    contenders: tuple[Contender, ...]
    absent: tuple[str, ...]
    """Titles of programs that were asked for and are not installed."""
    works: tuple[WorkDone, ...]


def median(runs: Sequence[Figures]) -> Figures:
    return Figures(
        seconds=statistics.median(one.seconds for one in runs),
        wire=_middle([one.wire for one in runs]),
        cpu_s=statistics.median(one.cpu_s for one in runs),
        peaks_mib=tuple(map(statistics.median, zip(*(one.peaks_mib for one in runs), strict=True))),
        sent_by_author=_middle_if_all(one.sent_by_author for one in runs),
        index=_middle_if_all(one.index for one in runs),
        longest_s=_median_if_all(one.longest_s for one in runs),
    )


def _middle(values: Sequence[int]) -> int:
    return round(statistics.median(values))


def _middle_if_all(values: Iterable[int | None]) -> int | None:
    found = _median_if_all(values)
    return None if found is None else round(found)


def _median_if_all(values: Iterable[float | None]) -> float | None:
    listed = list(values)
    known = [value for value in listed if value is not None]
    return statistics.median(known) if known and len(known) == len(listed) else None


def write(race: Race, path: Path) -> None:
    path.write_bytes(json.format(json.encode(race), indent=1) + b"\n")


def read(path: Path) -> Race:
    """Raises ValueError with a sentence."""
    try:
        return json.decode(path.read_bytes(), type=Race)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except (DecodeError, ValidationError) as error:
        raise ValueError(f"{path} does not hold a race: {error}.") from None
