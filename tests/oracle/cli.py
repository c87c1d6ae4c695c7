"""`scripts/synccheck`: users work on several devices, things fail, and what is left is judged."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.oracle import report
from tests.oracle.hub import has_hosts
from tests.oracle.on_batches import Rclone, Unison, has
from tests.oracle.on_p2psync import P2psync
from tests.oracle.on_syncthing import Syncthing
from tests.oracle.run import Outcome, Plan, Run, device_name
from tests.oracle.sampler import Sampler
from tests.oracle.system import System
from tests.support import syncthing

_OURS = "p2psync"
_MAKERS: Mapping[str, Callable[[Path, int], System]] = {
    _OURS: P2psync,
    "syncthing": Syncthing,
    "unison": Unison,
    "rclone": Rclone,
}


def _is_there(name: str) -> bool:
    return name == _OURS or (syncthing.is_installed() if name == "syncthing" else has(name))


def check(
    name: str, plan: Plan, base: Path, *, devices: int, tell: Callable[[str], None]
) -> Outcome:
    """Run one system below `base`; nothing of it runs any more afterwards."""
    place = base / name
    place.mkdir()
    system = _MAKERS[name](place, devices)
    try:
        roots = {device_name(number): root for number, root in enumerate(system.roots)}
        with Sampler(roots, system.is_private) as sampler:
            run = Run(system, plan, place, sampler=sampler)
            outcome = run.execute(tell)
    finally:
        system.close()
    (place / "events").write_text("".join(f"{event}\n" for event in run.ledger.events))
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="synccheck",
        description=(
            "Users create, edit, rename and delete on the disks of several devices, while these "
            "are stopped, parted and killed. At each rest all files are compared with what the "
            "users did. The exit code is 1 if p2psync violates a property. The seed decides what "
            "the users want; what they meet depends on who was faster."
        ),
    )
    add = parser.add_argument
    add("--systems", default=_OURS, help=f"of {', '.join(_MAKERS)}, with commas [{_OURS}]")
    add("--devices", type=int, default=3, help="[3]")
    add("--operations", type=int, default=500, help="changes by users, for each system [500]")
    add("--seed", type=int, default=1, help="[1]")
    add("--partitions", action="store_true", help="let the network fall apart")
    add("--kills", action="store_true", help="end devices by SIGKILL")
    add("--minutes", type=float, default=60.0, help="at most, for each system [60]")
    add("--settle", type=float, default=60.0, help="seconds within which all must rest [60]")
    add("--stop", action="store_true", help="end at the first violation")
    add("--dir", type=Path, default=None, help="where to work [temporary]")
    add("--strict", action="store_true", help="let the harmless ones decide the exit code too")
    add("--json", action="store_true", help="print one object instead of the table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    names = given.systems.split(",")
    if unknown := [name for name in names if name not in _MAKERS]:
        parser.error(f"unknown system {unknown[0]}; known are {', '.join(_MAKERS)}")
    if given.devices < 2:
        parser.error("it takes two devices at least")
    plan = Plan(
        given.operations,
        given.seed,
        partitions=given.partitions,
        kills=given.kills,
        seconds=given.minutes * 60,
        settle_s=given.settle,
        stop_early=given.stop,
    )
    tell = _teller(quiet=given.json)
    if given.partitions and not has_hosts():
        tell(
            "Not root, or ip, nft or nsenter is missing: a parted daemon is one that stands still."
        )
    base = Path(tempfile.mkdtemp(prefix="synccheck-", dir=given.dir))
    absent = [name for name in names if not _is_there(name)]
    for name in absent:
        tell(f"{name} is not installed, so nothing is known about it.")
    outcomes: dict[str, Outcome] = {}
    for name in names:
        if name not in absent:
            outcomes[name] = check(name, plan, base, devices=given.devices, tell=tell)
            if _is_fine(outcomes[name], strict=given.strict):
                shutil.rmtree(base / name)
    _show([*outcomes.values()], absent, base, as_json=given.json, strict=given.strict)
    ours = outcomes.get(_OURS)
    return 0 if ours is None or _is_fine(ours, strict=given.strict) else 1


def _is_fine(outcome: Outcome, *, strict: bool) -> bool:
    return not outcome.violations if strict else outcome.is_clean


def _show(
    outcomes: Sequence[Outcome], absent: Sequence[str], base: Path, *, as_json: bool, strict: bool
) -> None:
    findings = report.as_json(outcomes, absent)
    if as_json:
        print(json.dumps(findings))
    else:
        for one in outcomes:
            if not _is_fine(one, strict=strict):
                print(f"\n{one.system}:\n{report.stories(one, strict=strict)}")
        print(f"\n{report.table(outcomes)}")
    if all(_is_fine(one, strict=strict) for one in outcomes):
        shutil.rmtree(base)
    else:
        (base / "findings.json").write_text(json.dumps(findings, indent=1))
        print(f"What is left is in {base}.", file=sys.stderr)


def _teller(*, quiet: bool) -> Callable[[str], None]:
    return lambda line: print(line, file=sys.stderr, flush=True) if not quiet else None


if __name__ == "__main__":
    sys.exit(main())
