"""`verify`: reading everything, to find what the disk has damaged."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.options import AsJson, Home
from p2psync.cli.terminal import note, print_json, print_lines, say
from p2psync.cli.text import count_text
from p2psync.cli.views import finding_lines, verify_text
from p2psync.errors import DamagedError, UsageError

Json = dict[str, Any]

_POLL_S = 0.5
_FIRST_POLL_S = 0.05
_MENDING_S = 10.0
_FIRST_TELLING_S = 2.0
_TELL_EVERY_S = 10.0


def verify(
    name: Annotated[
        str | None, typer.Argument(metavar="[FOLDER]", help="Name of a folder.  [default: all]")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="MB/S",
            help="Read no faster than this.  [default: as the config says]",
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Begin only; `status` shows how far it is.")
    ] = False,
    as_json: AsJson = False,
    home: Home = "",
) -> None:
    """Read every file, to find what the disk has damaged without anybody writing to it.

    The daemon does it in the background, so Ctrl-C ends the view only. Damaged files are set aside
    in `.p2psync/damaged` and fetched again from a device that holds them.
    """
    from p2psync.config import MAX_RATE_MB_S

    if rate is not None and not 0 < rate <= MAX_RATE_MB_S:
        most = MAX_RATE_MB_S
        raise UsageError(f"--rate needs megabytes a second, more than 0 and at most {most}.")
    client = ControlClient(Path(home))
    rate_b_s = None if rate is None else rate * 1e6
    begun = client.call("verify", name=name, rate=rate_b_s)["folders"]
    rows = _rows(client, begun) if no_wait else _finished(client, begun, quiet=as_json)
    if as_json:
        print_json({"folders": [{"name": row["name"], **row["verify"]} for row in rows]})
    elif not rows:
        say("There is no folder to be verified.")
    else:
        print_lines([line for row in rows for line in (verify_text(row), *finding_lines(row))])
    damaged = sum(map(_damaged, rows))
    if damaged and not no_wait:
        raise DamagedError(
            f"{count_text(damaged, 'file is', 'files are')} damaged and not mended yet; "
            "`p2psync status` says what to do."
        )


def _finished(client: ControlClient, names: list[str], *, quiet: bool) -> list[Json]:
    """The folders once all is read, and what is damaged was mended if that was soon; until then how
    far it is, now and then."""
    pause_s = _FIRST_POLL_S
    mending_until = 0.0
    tell_at = time.monotonic() + _FIRST_TELLING_S
    while True:
        rows = _rows(client, names)
        if not any(row["verify"]["running"] for row in rows):
            mending_until = mending_until or time.monotonic() + _MENDING_S
            if not any(map(_damaged, rows)) or time.monotonic() >= mending_until:
                return rows
        elif not quiet and time.monotonic() >= tell_at:
            tell_at = time.monotonic() + _TELL_EVERY_S
            for row in rows:
                if row["verify"]["running"]:
                    note(verify_text(row))
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _POLL_S)


def _damaged(row: Json) -> int:
    return sum(finding["state"] == "damaged" for finding in row["verify"]["findings"])


def _rows(client: ControlClient, names: list[str]) -> list[Json]:
    return [row for row in client.call("status")["folders"] if row["name"] in names]
