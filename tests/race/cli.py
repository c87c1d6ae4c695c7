"""`scripts/race`: p2psync beside other programs that do the same work, in one run."""

import argparse
import contextlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence, Set
from pathlib import Path

from tests.e2e.processes import REPOSITORY
from tests.race import batches, namespace, on_p2psync, on_syncthing, page, record, report
from tests.race.peers import Program
from tests.race.profile import Profiler
from tests.race.record import Contender, Figures, Machine, Race, Result, WorkDone
from tests.race.run import Settings, Watch, run
from tests.race.works import Kind, Sizes, scenarios
from tests.support import syncthing

_LONGEST_PLACE = 64
_INTERRUPTED = 130
_FEW = 1000

Results = dict[str, dict[str, list[Figures | str]]]
"""By work and program, a figure or a failure for each run."""


def programs(binary: Path) -> list[Program]:
    """Ours is the first."""
    return [on_p2psync.program(), on_syncthing.program(binary), *batches.programs()]


def race(
    contenders: Sequence[Program],
    wanted: Set[str],
    settings: Settings,
    *,
    repeat: int,
    place: Path | None,
    once: Set[str] = frozenset(),
) -> Race:
    """Those that are not installed are left out, and told. They take turns in each round; works of
    `once` are in the first one only."""
    present = [program for program in contenders if program.version is not None]
    absent = [program.title for program in contenders if program.version is None]
    for title in absent:
        settings.tell(f"{title} is not installed: nothing is known about it.")
    machine = _machine(place)
    listed = scenarios(settings.sizes)
    results: Results = {work.name: {} for scenario in listed for work in scenario.works}
    with contextlib.ExitStack() as at_the_end:
        for scenario in listed:
            for turn in range(repeat):
                now = wanted - once if turn else wanted
                if now.isdisjoint(work.name for work in scenario.works):
                    continue
                for program in present:
                    base = Path(tempfile.mkdtemp(prefix="race-", dir=scenario.place or place))
                    at_the_end.callback(shutil.rmtree, base, ignore_errors=True)
                    done = run(program, scenario, now, base, settings)
                    if _has_few_files(base):
                        shutil.rmtree(base, ignore_errors=True)
                    for name, found in done.items():
                        results[name].setdefault(program.name, []).append(found)
    return Race(
        machine,
        repeat,
        tuple(Contender(one.name, one.title, one.version or "") for one in present),
        tuple(absent),
        tuple(
            WorkDone(
                work.name,
                work.title,
                {name: _result(found) for name, found in results[work.name].items()},
                work.kind is not Kind.IDLE,
            )
            for scenario in listed
            for work in scenario.works
            if work.name in wanted
        ),
    )


def _has_few_files(base: Path) -> bool:
    """Many that were deleted just now make new ones slow for minutes, on ext4 (it does not give
    their inodes away again so soon), and who comes next would have to pay for that."""
    return sum(len(names) for _, _, names in os.walk(base)) < _FEW


def _result(found: Sequence[Figures | str]) -> Result:
    runs = tuple(one for one in found if isinstance(one, Figures))
    failures = [one for one in found if isinstance(one, str)]
    return Result(runs, failures[0] if failures else None)


def _machine(place: Path | None) -> Machine:
    return Machine(
        kernel=platform.release(),
        processor=_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)),
        file_system=_file_system(Path(place or tempfile.gettempdir())),
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _file_system(place: Path) -> str:
    """The kind of the one that a directory is on: of what is mounted above it, the nearest."""
    found = ("", "unknown")
    real = place.resolve()
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if real.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]


def _parser(works: Sequence[str], standard: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="race",
        description=(
            "p2psync beside other programs that bring the same trees from one device to others, "
            "in one run, on a loopback from which nothing leads out. The exit code is 1 if "
            "p2psync failed at anything."
        ),
    )
    add = parser.add_argument
    others = [name for name in works if name not in standard]
    add("--works", help=f"of {', '.join(works)}, with commas [all but {', '.join(others)}]")
    add("--systems", help="of p2psync, syncthing, rsync, unison, cp, with commas [all]")
    add("--repeat", type=int, default=1, metavar="N", help="runs, of which the median is told [1]")
    add("--once", default="", metavar="WORKS", help="those of them that have one run all the same")
    add("--scale", type=float, default=1.0, help="all sizes are multiplied by it [1]")
    add("--limit", type=float, default=1800.0, help="seconds for each work [1800]")
    add("--dir", type=_directory, help="where to work [temporary]")
    add("--syncthing", type=_resolved, default=syncthing.DEBIANS, help="which one [%(default)s]")
    add("--json", type=Path, metavar="FILE", help="write what was found to it")
    add("--from-json", type=Path, metavar="FILE", help="show what was found then, and race not")
    add("--profile", type=_directory, metavar="DIR", help="no race: flame graphs of p2psync to it")
    add("--write-docs", action="store_true", help="put it into docs/performance.md and .svg")
    return parser


def _watch(directory: Path | None) -> Watch:
    """Raises ValueError when there is no py-spy."""
    if directory is None:
        return lambda work, processes: contextlib.nullcontext()
    py_spy = shutil.which("py-spy")
    if py_spy is None:
        raise ValueError("py-spy, which makes the flame graphs, is not installed: pip has it.")
    return Profiler(Path(py_spy), directory).watch


def _resolved(text: str) -> Path:
    """Programs are started in directories of their own."""
    return Path(text).resolve()


def _directory(text: str) -> Path:
    place = _resolved(text)
    if not place.is_dir():
        raise argparse.ArgumentTypeError(f"{place} is not a directory; make it.")
    if len(os.fsencode(place)) > _LONGEST_PLACE:
        raise argparse.ArgumentTypeError(f"{place} is too long for the names of sockets below it.")
    return place


def main(arguments: Sequence[str] | None = None, *, docs: Path = REPOSITORY / "docs") -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    known = [(work.name, one) for one in scenarios(Sizes()) for work in one.works]
    standard = [name for name, scenario in known if not scenario.asked_for]
    parser = _parser([name for name, _ in known], standard)
    given = parser.parse_args(words)
    if given.profile is not None:
        if given.write_docs or given.json is not None:
            parser.error("what is measured while --profile looks on is no figure to keep")
        given.systems = "p2psync"
    if given.repeat < 1 or given.scale <= 0:
        parser.error("--repeat and --scale have to be above zero")
    contenders = programs(given.syncthing)
    wanted = _chosen(parser, given.works, [name for name, _ in known], standard)
    names = [program.name for program in contenders]
    systems = _chosen(parser, given.systems, names, names)
    try:
        if given.from_json is not None:
            found = record.read(given.from_json)
        else:
            namespace.enter(words)
            found = race(
                [program for program in contenders if program.name in systems],
                wanted,
                Settings(
                    Sizes().scaled(given.scale),
                    given.limit,
                    tell=lambda line: print(line, file=sys.stderr, flush=True),
                    watch=_watch(given.profile),
                ),
                repeat=given.repeat,
                place=given.dir,
                once=_chosen(parser, given.once or None, [name for name, _ in known], ()),
            )
        return _show(found, given.json, docs if given.write_docs else None)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED


def _chosen(
    parser: argparse.ArgumentParser,
    given: str | None,
    known: Sequence[str],
    standard: Sequence[str],
) -> frozenset[str]:
    names = standard if given is None else given.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown: {unknown[0]}; known are {', '.join(known)}")
    return frozenset(names)


def _show(found: Race, to: Path | None, docs: Path | None) -> int:
    print(report.text(found))
    if to is not None:
        record.write(found, to)
    if docs is not None:
        page.write(found, docs)
    ours = [work.results.get("p2psync") for work in found.works]
    return 1 if any(result and result.failed for result in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
