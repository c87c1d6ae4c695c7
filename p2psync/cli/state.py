"""`status`, `wait` and `approve`: how things stand, and letting them go on."""

import math
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.options import AsJson, Home
from p2psync.cli.terminal import print_json, print_lines, say
from p2psync.cli.text import count_text
from p2psync.cli.views import status_lines
from p2psync.errors import TimedOutError, UsageError

_POLL_S = 20.0
_PAUSE_S = 0.05
_MAX_REASONS = 10


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it.")] = False,
    as_json: AsJson = False,
    home: Home = "",
) -> None:
    """Show this device, its folders and its peers, and what needs attention.

    With --watch --json: one line of JSON for every change.
    """
    client = ControlClient(Path(home))
    if watch:
        from p2psync.cli import live

        show = live.watch_json if as_json else live.watch
        # A daemon that is not there is told at once; the view gives one that stops a moment.
        client.call("status")
        try:
            show(client, stop=threading.Event())
        except KeyboardInterrupt:
            return
    elif as_json:
        print_json(client.call("status"))
    else:
        print_lines(status_lines(client.call("status")))


def wait(
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", help="Give up after this time.  [default: never]"
        ),
    ] = None,
    as_json: AsJson = False,
    home: Home = "",
) -> None:
    """Wait until nothing is pending here and the peers hold what this device has announced.

    With --timeout 0, look once.
    """
    if timeout is not None and not (math.isfinite(timeout) and timeout >= 0):
        raise UsageError("--timeout needs a number of seconds, 0 or more.")
    client = ControlClient(Path(home))
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        slice_s = min(left, _POLL_S)
        answer = client.call("wait", timeout=slice_s, within_s=slice_s + 30)
        if answer["done"] or time.monotonic() >= deadline:
            break
        # Against a daemon that answers at once instead of waiting.
        time.sleep(_PAUSE_S)
    if as_json:
        print_json({"done": answer["done"], "waiting_for": answer["waiting_for"]})
    elif answer["done"]:
        say("In sync.")
    if not answer["done"]:
        raise TimedOutError(_missing(answer["waiting_for"], timeout or 0))


def _missing(reasons: list[str], timeout: float) -> str:
    named = [reason.rstrip(".") for reason in reasons[:_MAX_REASONS]]
    if len(reasons) > _MAX_REASONS:
        named.append(f"and {len(reasons) - _MAX_REASONS} more")
    waiting = "; ".join(named) or "the daemon does not say what is missing"
    return f"Not in sync after {timeout:g} s: {waiting}."


def approve(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="Name of the folder.")],
    as_json: AsJson = False,
    home: Home = "",
) -> None:
    """Let the deletions go on that halted a folder because they are many. `status` tells them."""
    answer = ControlClient(Path(home)).call("approve", name=name)
    if as_json:
        print_json(answer)
    else:
        say(f"Approved {count_text(answer['approved'], 'deletion')} in “{name}”.")
