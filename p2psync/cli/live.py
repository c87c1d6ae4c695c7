"""The view that stays: redrawn in place on a terminal, a line for each change elsewhere."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from p2psync.cli.client import ControlClient
from p2psync.cli.terminal import print_json, print_lines
from p2psync.cli.text import need_text, shown, size_text
from p2psync.cli.views import change_lines, folder_lines, head_line, lines_after
from p2psync.errors import NotRunningError, TimedOutError

if TYPE_CHECKING:
    from rich.console import Group

Json = dict[str, Any]

_TERMINAL_S = 0.5
_LINES_S = 1.0


def watch(client: ControlClient, *, stop: threading.Event, hint: Sequence[str] = ()) -> None:
    """Show the daemon's state until `stop` is set. `hint`: harmless lines shown with it.

    Raises NotRunningError if the daemon goes away before that.
    """
    try:
        if sys.stdout.isatty():
            _watch_terminal(client, stop=stop, hint=hint)
        else:
            print_lines(hint)
            _watch_lines(client, stop=stop)
    except NotRunningError:
        # Also the ordinary end: a daemon that stops answers no more just before `stop` is set.
        if not stop.wait(1.0):
            raise


def watch_json(client: ControlClient, *, stop: threading.Event) -> None:
    """Print the status as a line of JSON whenever it changed, until `stop` is set."""
    last: Json | None = None
    for status in _poll(client, stop=stop, every_s=_LINES_S):
        if status != last:
            print_json(status)
            last = status


def _poll(client: ControlClient, *, stop: threading.Event, every_s: float) -> Iterator[Json]:
    """The status again and again; a daemon too busy to answer is asked again."""
    while not stop.is_set():
        with suppress(TimedOutError):
            yield client.call("status")
        stop.wait(every_s)


def _watch_lines(client: ControlClient, *, stop: threading.Event) -> None:
    last: dict[str, str] = {}
    for status in _poll(client, stop=stop, every_s=_LINES_S):
        lines = change_lines(status)
        changed = [line for about, line in lines.items() if last.get(about) != line]
        if changed:
            print_lines(changed)
        last = lines


def _watch_terminal(client: ControlClient, *, stop: threading.Event, hint: Sequence[str]) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, transient=False) as live:
        for status in _poll(client, stop=stop, every_s=_TERMINAL_S):
            live.update(render(status, hint=hint), refresh=True)


def render(status: Json, *, hint: Sequence[str]) -> "Group":
    """`status` for a terminal: a progress bar for each folder, and what plain `status` says."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    folders = Table.grid(padding=(0, 2))
    for folder in status["folders"]:
        held, need = folder["bytes"], folder["need_bytes"]
        waiting = need_text(folder["need_files"], need)
        folders.add_row(
            Text(shown(folder["name"]), style="bold"),
            Text(shown(folder["state"]), style="red" if folder["state"] == "halted" else ""),
            ProgressBar(total=max(held + need, 1), completed=held if held + need else 1, width=24),
            Text(f"{size_text(held)} here, to fetch: {waiting}"),
        )
    return Group(
        Text(head_line(status)),
        folders if status["folders"] else Text(folder_lines([])[0]),
        *(Text(line) for line in ["", *lines_after(status)]),
        *(Text(line, style="cyan") for line in hint),
        Text("Ctrl-C ends this view.", style="dim"),
    )
