"""Counts, measures and draws: `scripts/scaling`."""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tests.scaling import graphs, group, index_size, sessions
from tests.scaling.overlay import SHAPES
from tests.scaling.plots import draw
from tests.scaling.tables import filled

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_RESULTS = "scaling.json"
_PAGE = "scaling.md"

_DEVICES = (2, 4, 8, 16, 32, 64, 128)
_LARGE_GROUPS = (64, 128, 256, 512)
_LEAST_OVERLAY = 16
"""Below, an overlay of eight neighbours is hardly another thing than the mesh."""
_FILES = (10_000, 100_000, 1_000_000)
_VECTORS = (1, 2, 4, 8, 16, 32, 64, 128)
_FILES_OF_VECTORS = 4000
_FILES_OF_NEWCOMERS = 1000
_AWAY_PERCENT = (0, 10, 20, 30, 40, 50, 60)
_AWAY_OF = 128
_SESSIONS = 50
_DEPTH = 3


class Task(NamedTuple):
    part: str
    shape: str
    number: int
    seed: int


def tasks(arguments: argparse.Namespace) -> Iterator[Task]:
    """The quick ones first."""

    def task(part: str, number: int, shape: str = "") -> Task:
        return Task(part, shape, number, arguments.seed)

    every = {
        "graphs": [
            task("graphs", count, shape)
            for shape in SHAPES
            for count in sorted({*arguments.devices, *_LARGE_GROUPS})
            if count >= _LEAST_OVERLAY
        ],
        "away": [task("away", each, shape) for shape in SHAPES for each in _AWAY_PERCENT],
        "one more": [task("one more", count) for count in _LARGE_GROUPS],
        "sessions": [task("sessions", _SESSIONS)],
        "sizes": [task("sizes", vector) for vector in _VECTORS],
        "files": [task("files", files) for files in arguments.files],
        "newcomer": [
            task("newcomer", count, shape)
            for count in arguments.devices
            for shape in ("mesh", "rings-6")
            if count <= arguments.most_newcomers and _is_of_use(shape, count)
        ],
        "changes": [
            task("changes", count, shape)
            for count in arguments.devices
            for shape in SHAPES
            if _is_of_use(shape, count)
        ],
    }
    for part, listed in every.items():
        if part in (arguments.parts or every):
            yield from listed


def _is_of_use(shape: str, count: int) -> bool:
    return shape == "mesh" or count >= _LEAST_OVERLAY


def carry_out(task: Task) -> tuple[Task, Any, float]:
    began = time.monotonic()
    return task, _CARRY_OUT[task.part](task), time.monotonic() - began


def _changes(task: Task) -> Any:
    costs = group.changes(task.shape, task.number, seed=task.seed)
    return {name: asdict(cost) for name, cost in costs.items()}


def _newcomer(task: Task) -> Any:
    return asdict(
        group.newcomer(task.shape, task.number, files=_FILES_OF_NEWCOMERS, seed=task.seed)
    )


def _sizes(task: Task) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        return asdict(
            asyncio.run(
                index_size.measure_sizes(
                    Path(directory), _FILES_OF_VECTORS, vector=task.number, seed=task.seed
                )
            )
        )


def _files(task: Task) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "index.db"
        # In a process of its own, whose memory is then its own.
        filling = multiprocessing.get_context("spawn").Process(target=_fill, args=(path, task))
        filling.start()
        filling.join()
        if filling.exitcode:
            raise RuntimeError("the index could not be filled")
        size = path.stat().st_size
        return {"on_disk": size, **asdict(asyncio.run(index_size.measure_work(path)))}


def _fill(path: Path, task: Task) -> None:
    asyncio.run(index_size.fill(path, task.number, vector=1, seed=task.seed))


_CARRY_OUT: dict[str, Callable[[Task], Any]] = {
    "changes": _changes,
    "newcomer": _newcomer,
    "sizes": _sizes,
    "files": _files,
    "sessions": lambda task: asdict(asyncio.run(sessions.measure(task.number))),
    "graphs": lambda task: asdict(graphs.hops(task.shape, task.number)),
    "away": lambda task: graphs.together(
        task.shape, _AWAY_OF, away_percent=task.number, seed=task.seed
    ),
    "one more": lambda task: graphs.changed(task.number),
}


def merged(results: dict[str, Any], task: Task, found: Any) -> dict[str, Any]:
    """`results` with what the task found in its place, in one order whatever came first."""
    part = dict(results.get(task.part, {}))
    if task.shape:
        part[task.shape] = _ordered({**part.get(task.shape, {}), str(task.number): found})
        part = {shape: part[shape] for shape in SHAPES if shape in part}
    else:
        part = _ordered({**part, str(task.number): found})
    every = {**results, task.part: part}
    return {name: every[name] for name in _CARRY_OUT if name in every}


def _ordered(found: dict[str, Any]) -> dict[str, Any]:
    return {number: found[number] for number in sorted(found, key=int)}


def as_text(results: dict[str, Any]) -> str:
    """JSON with a line for each thing that was found."""

    def told(value: Any, depth: int) -> str:
        is_deep = isinstance(value, dict) and any(isinstance(each, dict) for each in value.values())
        if not is_deep or depth > _DEPTH:
            return json.dumps(value)
        inner = " " * depth
        lines = [
            f"{inner} {json.dumps(key)}: {told(each, depth + 1)}" for key, each in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{inner}}}"

    return told(results, 0) + "\n"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/scaling",
        description="Counts what devices and files cost, and draws it.",
    )
    parser.add_argument(
        "--devices",
        type=_numbers,
        default=_DEVICES,
        help="sizes of the groups (default: %(default)s)",
    )
    parser.add_argument(
        "--files", type=_numbers, default=_FILES, help="sizes of the index (default: %(default)s)"
    )
    parser.add_argument(
        "--most-newcomers", type=int, default=32, help="the largest group that a newcomer meets"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="at a time (default: 1)")
    parser.add_argument("--into", type=Path, default=_DOCS, help="a directory (default: docs)")
    parser.add_argument(
        "--parts",
        type=lambda text: text.split(","),
        help=f"only these of {', '.join(_CARRY_OUT)}; what others found is kept",
    )
    parser.add_argument("--draw", action="store_true", help="draw what was found before")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.parts or ()) - _CARRY_OUT.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    file: Path = arguments.into / _RESULTS
    results = json.loads(file.read_text()) if file.exists() else {}
    if not arguments.draw:
        # A process for each, because memory is measured.
        with ProcessPoolExecutor(
            arguments.processes,
            mp_context=multiprocessing.get_context("spawn"),
            max_tasks_per_child=1,
        ) as pool:
            carried_out = [pool.submit(carry_out, task) for task in tasks(arguments)]
            for each in as_completed(carried_out):
                task, found, took_s = each.result()
                results = merged(results, task, found)
                file.write_text(as_text(results))
                print(f"{task.part} {task.shape} {task.number}: {took_s:.1f} s", flush=True)
    for name, picture in draw(results).items():
        (arguments.into / name).write_bytes(picture)
    if (page := arguments.into / _PAGE).exists():
        page.write_text(filled(page.read_text(), results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
