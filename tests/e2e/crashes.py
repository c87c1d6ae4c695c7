"""`scripts/crashes`: in every situation, the power goes at every failpoint; nothing may be lost."""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from p2psync import failpoints
from p2psync.errors import P2psyncError
from tests.e2e import rounds
from tests.e2e.changes import SCENARIOS, Scenario
from tests.e2e.crashing import Victims, lay_out
from tests.e2e.harness import Lab, assert_sound_logs, start_all

Round = Callable[[str], bool]
"""Cuts the power at a point, and tells whether it was reached."""

FIRST = "commit.after-swap"
"""Leaves a displaced file in staging, which the next start has to put away."""


class Situation:
    """Two devices for the rounds of one situation, made anew after a round that failed."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._made = 0
        self._lab: Lab | None = None
        self._victims: Victims | None = None
        self.number = 0

    def lab(self) -> Lab:
        """An empty one."""
        self.close()
        self._made += 1
        self._lab = Lab(self._base / str(self._made))
        return self._lab

    def victims(self) -> Victims:
        """Paired, sharing a folder, at rest."""
        self.number += 1
        if self._victims is None:
            victims = Victims(self.lab())
            start_all(victims.devices)
            victims.meet()
            self._victims = victims
        return self._victims

    def place(self) -> Path:
        """A directory that nobody made yet."""
        return self._base / f"of round {self.number}"

    def close(self) -> None:
        self._victims = None
        if self._lab is not None:
            lab, self._lab = self._lab, None
            lab.close()
            try:
                assert_sound_logs(lab.logs())
            finally:
                shutil.rmtree(lab.base)


def _changes(of: Situation, scenarios: Sequence[Scenario], point: str, how: str) -> bool:
    victims = of.victims()
    changes = victims.round(f"{of.number}")
    lay_out(scenarios, changes)
    victims.rest()
    before = rounds.index_of_yesterday(victims, of.place()) if how == "set back" else None
    first = FIRST if how == "twice" else None
    return rounds.changes_meet(
        victims, scenarios, changes, point, before=before or (lambda: None), first=first
    )


def _situations(of: Situation) -> Mapping[str, Round]:
    alone: dict[str, Round] = {
        scenario.name: lambda point, scenario=scenario: _changes(  # type: ignore[misc]
            of, [scenario], point, "in order"
        )
        for scenario in SCENARIOS
    }
    return alone | {
        "twice": lambda point: _changes(of, SCENARIOS, point, "twice"),
        "index-set-back": lambda point: _changes(of, SCENARIOS, point, "set back"),
        "index-damaged": lambda point: rounds.index_is_damaged(of.victims(), point),
        "folder-added": lambda point: rounds.folder_is_added(of.victims(), f"{of.number}", point),
        "folder-removed": lambda point: rounds.folder_is_removed(
            of.victims(), f"{of.number}", point
        ),
        "pairing-host": lambda point: rounds.devices_pair(of.lab(), "host", point),
        "pairing-guest": lambda point: rounds.devices_pair(of.lab(), "guest", point),
        "identity": lambda point: rounds.device_gets_identity(of.lab(), point),
    }


NAMES = tuple(_situations(Situation(Path())))


@contextlib.contextmanager
def _below(place: Path | None) -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="crashes-", dir=place))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crashes",
        description=(
            "In every situation a daemon is ended by SIGKILL at every failpoint and started again. "
            "Nothing torn may be visible, no index may claim what its disk lacks, and in the end "
            "both devices have exactly what their users left. The exit code is 1 if something is "
            "wrong, or if all was asked for and a failpoint was reached in no situation."
        ),
    )
    add = parser.add_argument
    add("--situations", default=",".join(NAMES), help=f"of {', '.join(NAMES)}, with commas [all]")
    add("--points", default=",".join(failpoints.NAMES), help="failpoints, with commas [all]")
    add("--times", default="1", help="at which times that a point is reached, with commas [1]")
    add("--dir", type=Path, default=None, help="where to work [temporary]")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    names, points = given.situations.split(","), given.points.split(",")
    if unknown := [*({*names} - {*NAMES}), *({*points} - {*failpoints.NAMES})]:
        parser.error(f"unknown: {', '.join(unknown)}")
    times = given.times.split(",")
    if not all(time.isdecimal() and int(time) > 0 for time in times):
        parser.error("times are whole numbers from 1 on, with commas")
    if given.dir is not None and not given.dir.is_dir():
        parser.error(f"there is no directory {given.dir}; make it, or leave --dir out")
    reached: set[str] = set()
    failures = 0
    with _below(given.dir) as base:
        for name in names:
            started, cuts, wrong = time.monotonic(), 0, 0
            of = Situation(base / name)
            attempt = _situations(of)[name]
            try:
                for point in (f"{point}:{time}" for time in times for point in points):
                    try:
                        if attempt(point):
                            cuts += 1
                            reached.add(point.partition(":")[0])
                    except (AssertionError, RuntimeError, P2psyncError) as error:
                        wrong += 1
                        _tell(f"{name}, {point}: {error}")
                        _close(of)
            finally:
                wrong += not _close(of)
            failures += wrong
            took = time.monotonic() - started
            rounds_ = len(points) * len(times)
            _tell(f"{name}: {rounds_} rounds, {cuts} power cuts, {wrong} wrong, {took:.0f} s")
    never = [point for point in points if point not in reached]
    if never:
        _tell(f"Reached in no situation: {', '.join(never)}")
    return 1 if failures or (never and len(names) == len(NAMES)) else 0


def _close(of: Situation) -> bool:
    """Whether its logs are sound."""
    try:
        of.close()
    except AssertionError as error:
        _tell(str(error))
        return False
    return True


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
