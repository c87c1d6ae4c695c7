"""What is told of each work, and how it is written."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.race.record import Figures, Result, WorkDone

_UNITS = ("bytes", "KiB", "MiB", "GiB")


@dataclass(frozen=True, slots=True)
class Measure:
    """`value` is what ratios are made of; None where the program does not tell."""

    title: str
    value: Callable[[Figures], float | None]
    write: Callable[[Figures], str]
    of_all: bool = True
    """False: only of works that go on until they are done, not for a given time."""

    def is_of(self, work: WorkDone) -> bool:
        return self.of_all or work.is_timed

    def of(self, result: Result | None) -> float | None:
        figures = result.median if result else None
        return self.value(figures) if figures else None

    def text(self, result: Result | None) -> str:
        """`-` for what the program cannot do or does not tell."""
        if result is None:
            return "-"
        if result.median is None:
            return "failed"
        return self.write(result.median) if self.value(result.median) is not None else "-"


def seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(value: float) -> str:
    at = 0
    while value >= 1000 and at < len(_UNITS) - 1:
        value /= 1024
        at += 1
    return f"{value:.0f} {_UNITS[at]}" if value >= 100 or at == 0 else f"{value:.1f} {_UNITS[at]}"


def _memory(figures: Figures) -> str:
    author, *others = figures.peaks_mib
    return f"{author:.0f} + {max(others):.0f} MiB"


SECONDS = Measure(
    "seconds", lambda one: one.seconds, lambda one: seconds(one.seconds), of_all=False
)
MEASURES = (
    SECONDS,
    Measure("longest edit", lambda one: one.longest_s, lambda one: seconds(one.longest_s or 0)),
    Measure("on the wire", lambda one: one.wire, lambda one: size(one.wire)),
    Measure(
        "sent by author", lambda one: one.sent_by_author, lambda one: size(one.sent_by_author or 0)
    ),
    Measure("CPU seconds", lambda one: one.cpu_s, lambda one: seconds(one.cpu_s)),
    Measure("peak memory", lambda one: one.peak_mib, _memory),
    Measure("index", lambda one: one.index, lambda one: size(one.index or 0)),
)


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times ours theirs is; None if one is missing or nothing."""
    return theirs / ours if ours and theirs else None


def ratio_text(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"
