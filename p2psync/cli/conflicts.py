"""`conflicts list|diff|keep`: where two devices changed one file, a person decides."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.options import AsJson, DryRun, Home
from p2psync.cli.terminal import absolute, print_json, print_lines, say
from p2psync.cli.text import shown
from p2psync.cli.views import conflict_lines
from p2psync.errors import NotFoundError, UsageError

Json = dict[str, Any]

app = typer.Typer(rich_markup_mode=None, help="Files changed on two devices at once.")

Version = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A conflict copy or the file it conflicts with: a path, or FOLDER/PATH.",
    ),
]


@app.command("list")
def list_conflicts(as_json: AsJson = False, home: Home = "") -> None:
    """List the conflict copies and what they conflict with."""
    answer = ControlClient(Path(home)).call("conflicts_list")
    if as_json:
        print_json(answer)
    else:
        print_lines(conflict_lines(answer["conflicts"]))


@app.command("diff")
def diff(path: Version, as_json: AsJson = False, home: Home = "") -> None:
    """Show how a conflict copy differs from the file; of a file, how each of its copies does."""
    from p2psync.cli.difference import compare

    found = _find(ControlClient(Path(home)), path)
    differences = [
        compare(
            Path(conflict["original_absolute"]),
            Path(conflict["absolute"]),
            names=(_original_name(conflict), _copy_name(conflict)),
        )
        for conflict in found
    ]
    if as_json:
        print_json({"differences": [one.as_json() for one in differences]})
        return
    for one in differences:
        # To a terminal nothing raw: a peer wrote this text. A file or a pipe gets a true patch.
        if sys.stdout.isatty():
            print_lines(shown(line.rstrip("\n").expandtabs()) for line in one.lines)
        else:
            sys.stdout.write("".join(one.lines))
    sys.stdout.flush()


@app.command("keep")
def keep(path: Version, dry_run: DryRun = False, as_json: AsJson = False, home: Home = "") -> None:
    """Keep this version under the file's name, and remove its competitors everywhere."""
    client = ControlClient(Path(home))
    found = _find(client, path)
    chosen = _chosen(found, path)
    answer = _plan(found, chosen) if dry_run else client.call("conflicts_keep", path=chosen)
    if as_json:
        print_json(answer)
        return
    say(f"{'Would keep' if dry_run else 'Kept'} {answer['kept']}.")
    for removed in answer["removed"]:
        say(f"{'Would remove' if dry_run else 'Removed'} {removed}.")


def _find(client: ControlClient, path: str) -> list[Json]:
    """The conflicts `path` takes part in, at least one. Raises UsageError or NotFoundError."""
    names = _names(path)
    conflicts = client.call("conflicts_list")["conflicts"]
    exact = [one for one in conflicts if names & {one["absolute"], _copy_name(one)}]
    found = exact or [
        one for one in conflicts if names & {one["original_absolute"], _original_name(one)}
    ]
    if not found:
        raise NotFoundError(
            f"“{path}” takes part in no conflict; `p2psync conflicts list` shows those that do."
        )
    return found


def _names(path: str) -> set[str]:
    """What the daemon may call `path`: FOLDER/PATH as typed, and its place on this disk."""
    here = absolute(path)
    if not here.name:
        raise UsageError(f"“{path}” is not a file.")
    # The file itself may be a symlink; only what leads to it is resolved.
    return {path, os.path.join(os.path.realpath(here.parent), here.name), str(here)}


def _chosen(found: Sequence[Json], path: str) -> str:
    """The absolute path of the version to keep."""
    names = _names(path)
    for conflict in found:
        if names & {conflict["absolute"], _copy_name(conflict)}:
            return str(conflict["absolute"])
    return str(found[0]["original_absolute"])


def _plan(found: Sequence[Json], chosen: str) -> Json:
    """What `keep` would answer, as far as the list of conflicts tells."""
    rivals = {one[key]: None for one in found for key in ("original_absolute", "absolute")}
    return {"kept": chosen, "removed": [path for path in rivals if path != chosen]}


def _copy_name(conflict: Json) -> str:
    return f"{conflict['folder']}/{conflict['path']}"


def _original_name(conflict: Json) -> str:
    return f"{conflict['folder']}/{conflict['original']}"
