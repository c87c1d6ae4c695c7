"""Plays schedules, one seed after another, on all cores, until the time is over."""

import argparse
import gc
import itertools
import multiprocessing
import os
import queue
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.pool import Pool
from typing import NamedTuple

from tests.simulation.mutations import MUTATIONS, mutated
from tests.simulation.play import Outcome, play

_TAIL = 40
_PROGRESS_S = 10.0
_AHEAD = 4
"""So many schedules for each process are ordered before they can begin."""
_OPERATIONS = frozenset("write remove mkdir link rename renamed chmod touch restore".split())  # noqa: SIM905


class _Task(NamedTuple):
    seed: int
    devices: int | None
    mutation: str | None
    suited_to: str | None
    is_played_twice: bool


class Played(NamedTuple):
    seed: int
    violation: str | None
    tail: list[str]
    counts: Counter[str]
    took_s: float
    converged_s: float


def run(task: _Task) -> Played:
    began = time.perf_counter()
    outcome = _play(task)
    violation = outcome.violation
    if task.is_played_twice:
        again = _play(task)
        if again.digest != outcome.digest:
            violation = (
                f"another trace when played again, from: {_first_difference(outcome, again)}"
            )
    return Played(
        task.seed,
        violation,
        outcome.lines[-_TAIL:] if violation is not None else [],
        outcome.counts,
        time.perf_counter() - began,
        outcome.converged_s,
    )


def _play(task: _Task, *, shows_messages: bool = False) -> Outcome:
    with mutated(task.mutation) as change:
        if task.suited_to is not None:
            change = MUTATIONS[task.suited_to].suits
        return play(task.seed, devices=task.devices, change=change, shows_messages=shows_messages)


def _first_difference(one: Outcome, other: Outcome) -> str:
    pairs = zip(one.lines, other.lines, strict=False)
    return next((f"{was} / {now}" for was, now in pairs if was != now), "its end")


def replay_command(task: _Task) -> str:
    words = ["scripts/soak", "--replay", str(task.seed)]
    if task.devices is not None:
        words += ["--devices", str(task.devices)]
    if task.mutation is not None:
        words += ["--mutation", task.mutation]
    if task.suited_to is not None:
        words += ["--suited-to", task.suited_to]
    return shlex.join(words)


def _task(arguments: argparse.Namespace, seed: int) -> _Task:
    return _Task(seed, arguments.devices, arguments.mutation, arguments.suited_to, arguments.twice)


def _tasks(arguments: argparse.Namespace) -> Iterator[_Task]:
    """Until the time is over."""
    deadline = time.monotonic() + arguments.minutes * 60.0
    for number in itertools.count():
        if number == arguments.schedules or time.monotonic() >= deadline:
            return
        yield _task(arguments, arguments.seed + number)


def _played(pool: Pool, arguments: argparse.Namespace) -> Iterator[Played]:
    """As they end. Few are ordered ahead, for the time may be over, and no process waits for what
    another one plays."""
    ended: queue.SimpleQueue[Played | BaseException] = queue.SimpleQueue()
    tasks = _tasks(arguments)
    running = 0
    while True:
        for task in itertools.islice(tasks, _AHEAD * arguments.processes - running):
            pool.apply_async(run, (task,), callback=ended.put, error_callback=ended.put)
            running += 1
        if not running:
            return
        result = ended.get()
        if isinstance(result, BaseException):
            raise result
        running -= 1
        yield result


def _soak(arguments: argparse.Namespace) -> int:
    totals: Counter[str] = Counter()
    failed: list[int] = []
    schedules, slowest, longest = 0, (0.0, 0), (0.0, 0)
    began = told = time.monotonic()
    # The program itself is nothing to be collected, and most of what there is.
    with multiprocessing.Pool(arguments.processes, gc.freeze, maxtasksperchild=500) as pool:
        for played in _played(pool, arguments):
            schedules += 1
            totals += played.counts
            slowest = max(slowest, (played.took_s, played.seed))
            longest = max(longest, (played.converged_s, played.seed))
            if played.violation is not None:
                failed.append(played.seed)
                print("\n".join(f"    {line}" for line in played.tail[-arguments.tail :]))
                print(f"seed {played.seed}: {played.violation}")
                print(f"  again: {replay_command(_task(arguments, played.seed))}", flush=True)
            if time.monotonic() - told >= _PROGRESS_S:
                told = time.monotonic()
                rate = schedules / (told - began)
                print(
                    f"{schedules} schedules, {rate:.1f} a second, {len(failed)} violations",
                    flush=True,
                )
            if arguments.until_failure and failed:
                break
    operations = sum(count for kind, count in totals.items() if kind in _OPERATIONS)
    faults = {kind: totals[kind] for kind in sorted(totals) if kind not in _OPERATIONS}
    print(
        f"slowest: seed {slowest[1]}, {slowest[0]:.1f} s; "
        f"longest way to rest: seed {longest[1]}, {longest[0]:.0f} s"
    )
    print(f"faults: {', '.join(f'{kind} {count}' for kind, count in faults.items())}")
    print(
        f"{schedules} schedules in {time.monotonic() - began:.0f} s, {operations} operations, "
        f"{sum(faults.values())} faults, {len(failed)} violations"
        + (f": seeds {sorted(failed)}" if failed else "")
    )
    return 1 if failed else 0


def _replay(arguments: argparse.Namespace) -> int:
    task = _task(arguments, arguments.replay)
    outcome = _play(task, shows_messages=arguments.messages)
    print(outcome.mix)
    print("\n".join(outcome.lines if arguments.all else outcome.lines[-_TAIL:]))
    print(f"trace {outcome.digest[:16]}: {outcome.violation or 'no violation'}")
    return 1 if outcome.violation is not None else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Plays random schedules of edits and faults on simulated devices.",
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--schedules", type=int, help="at most so many")
    parser.add_argument("--devices", type=int, choices=range(2, 9), help="in each schedule")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--until-failure", action="store_true", help="stop at the first violation")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="break the engine like this")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one schedule, and show it")
    parser.add_argument("--all", action="store_true", help="show all of it and not just the end")
    parser.add_argument("--twice", action="store_true", help="compare with a second time")
    parser.add_argument("--tail", type=int, default=12, help="lines shown of a violation")
    parser.add_argument(
        "--suited-to", choices=sorted(MUTATIONS), help="schedules that such a fault shows in"
    )
    parser.add_argument("--messages", action="store_true", help="show what devices say")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of paths is a part of what a seed replays.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation.soak", *sys.argv[1:]])
    return _soak(arguments) if arguments.replay is None else _replay(arguments)


if __name__ == "__main__":
    sys.exit(main())
