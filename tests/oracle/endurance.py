"""`scripts/endurance`: real daemons for a long time. Is all still right, and do they still take no
more than in the beginning?"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from p2psync.cli.client import ControlClient
from tests.e2e.device import Device
from tests.e2e.harness import assert_sound_logs
from tests.e2e.trees import assert_same_trees
from tests.oracle import report
from tests.oracle.gauges import Gauges, Life, ProcessOf
from tests.oracle.growth import Verdict, judge, warm
from tests.oracle.judge import Violation
from tests.oracle.on_p2psync import P2psync
from tests.oracle.run import Outcome, Plan, Run, device_name
from tests.oracle.sampler import Sampler

DEVICES = 3
STEADY = 0
"""This device is never stopped nor killed, so that what it leaks adds up."""

_SPARED = (frozenset({STEADY}), frozenset({STEADY, 1}), frozenset({STEADY, 2}))
"""Who is neither stopped nor killed, by turns: so the others get to live for a while too."""
_TURNS = 6

_CALM_S = 1.0
_MIB = 1 << 20
_HOUR_S = 3600


def spared(done: float) -> frozenset[int]:
    """The devices that are neither stopped nor killed when this part of the time, of 1, is over."""
    return _SPARED[int(done * _TURNS) % len(_SPARED)]


def endure(
    base: Path, *, minutes: float, seed: int, tell: Callable[[str], None]
) -> tuple[Outcome, list[Life], list[str]]:
    """Run below `base`. What the oracle found, the longest life of each device, and what else was
    wrong in the end."""
    plan = Plan(sys.maxsize, seed, partitions=True, kills=True, seconds=minutes * 60, settle_s=90)
    system = P2psync(base / "devices", DEVICES)
    wrong: list[str] = []
    try:
        names = {device_name(number): one for number, one in enumerate(system.devices)}
        roots = {name: one.root for name, one in names.items()}
        processes = {name: _process_of(one) for name, one in names.items()}
        with (
            Gauges(processes, base / "readings.csv") as gauges,
            Sampler(roots, system.is_private) as sampler,
        ):
            run = Run(system, plan, base, sampler=sampler)

            def at_rest() -> None:
                time.sleep(_CALM_S)
                for name, device in names.items():
                    gauges.rest(name, *_counts(device))
                run.steady = spared(gauges.seconds / plan.seconds)
                for one in run.outcome.violations[len(told) :]:
                    told.append(one)
                    tell(str(one))

            told: list[Violation] = []
            run.steady = spared(0)
            outcome = run.execute(tell, at_rest)
        (base / "events").write_text("".join(f"{event}\n" for event in run.ledger.events))
        wrong += _last_look(system)
        if len([life for life in gauges.lives.values() if life.device == device_name(STEADY)]) > 1:
            wrong.append(f"{device_name(STEADY)} ended, which nobody asked of it")
    finally:
        system.close()
    return outcome, gauges.longest(), wrong


def _process_of(device: Device) -> ProcessOf:
    def pid() -> int | None:
        process = device.process
        return None if process is None else process.pid

    return pid


def _counts(device: Device) -> tuple[int, int]:
    """Of tasks, and of threads in its pool."""
    told = ControlClient(device.home).call("doctor")
    return int(told["tasks"]), int(told["pooled_threads"])


def _last_look(system: P2psync) -> list[str]:
    """Byte for byte, by another reader than the oracle's."""
    found = []
    if why := system.settle(90):
        found.append(f"not at rest in the end: {why}")
    try:
        assert_same_trees({device.name: device.root for device in system.devices})
        assert_sound_logs(system.logs())
    except AssertionError as error:
        found.append(str(error))
    return found


def is_sound(outcome: Outcome, verdicts: Sequence[tuple[Life, Verdict]], wrong: object) -> bool:
    """The steady device has to be flat; of the others it is enough if none is seen to grow."""
    steady = [verdict for life, verdict in verdicts if life.device == device_name(STEADY)]
    return (
        outcome.is_clean
        and not wrong
        and bool(steady)
        and all(verdict.is_flat for verdict in steady)
        and not any(verdict.faults for _, verdict in verdicts)
    )


def table(verdicts: Sequence[tuple[Life, Verdict]]) -> str:
    """A row for each life. First, last: at rest, after the warm-up; most: at any time."""
    counted = ("memory MiB", "descriptors", "threads", "tasks")
    rows = [("device", "lived s", "rests", "MiB/h", "±", *counted, "verdict")]
    for life, verdict in verdicts:
        kept = warm(life.rests)
        slope = verdict.slope
        rows.append(
            (
                life.device,
                f"{life.seconds:.0f}",
                str(len(kept)),
                f"{slope.per_second * _HOUR_S / _MIB:+.2f}" if slope else "-",
                f"{slope.error * _HOUR_S / _MIB:.2f}" if slope else "-",
                _range([f"{one.memory / _MIB:.1f}" for one in kept])
                + f" ({life.peaks['memory'] / _MIB:.1f})",
                _range([str(one.descriptors) for one in kept]) + f" ({life.peaks['descriptors']})",
                _range([str(one.threads) for one in kept]) + f" ({life.peaks['threads']})",
                _range([str(one.tasks) for one in kept]),
                str(verdict),
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    legend = (
        "  at rest, the first and the last after the warm-up, and (at most, at any time). ± is the "
        "standard error"
    )
    return "\n".join([*lines, "", legend])


def _range(shown: Sequence[str]) -> str:
    return f"{shown[0]} → {shown[-1]}" if shown else "-"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="endurance",
        description=(
            "Three daemons, users who change files all the time, kills and partitions. The oracle "
            "judges at each rest; memory, descriptors, threads and tasks are read meanwhile. The "
            "exit code is 1 if a file is wrong or a daemon takes more and more."
        ),
    )
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    parser.add_argument("--dir", type=Path, default=None, help="where to work [temporary]")
    parser.add_argument(
        "--keep", action="store_true", help="leave all files, also when all is well"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    base = Path(tempfile.mkdtemp(prefix="endurance-", dir=given.dir))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    outcome, lives, wrong = endure(base, minutes=given.minutes, seed=given.seed, tell=tell)
    verdicts = [(life, judge(life.rests)) for life in lives]
    print(f"{report.table([outcome])}\n\n{table(verdicts)}")
    if is_sound(outcome, verdicts, wrong):
        if given.keep:
            print(f"The readings are in {base / 'readings.csv'}.", file=sys.stderr)
        else:
            shutil.rmtree(base)
        return 0
    print("\n".join(["", *wrong, report.stories(outcome)]).rstrip())
    print(f"What is left is in {base}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
