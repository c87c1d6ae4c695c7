"""`pair new` and `pair join`: two people agree that two devices trust each other."""

import os
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.key_file import create_key_file, read_key_file
from p2psync.cli.options import AsJson, Home
from p2psync.cli.terminal import absolute, note, print_json, print_lines, say
from p2psync.cli.text import shown
from p2psync.cli.views import device_text, duration_text
from p2psync.errors import P2psyncError, RefusedError, TimedOutError, UsageError

Json = dict[str, Any]

app = typer.Typer(rich_markup_mode=None, help="Make two devices trust each other.")

_POLL_S = 20.0
_PAUSE_S = 0.1
_JOIN_S = 75.0
_MAX_CODE = 256

KeyFile = Annotated[
    str | None,
    typer.Option(
        "--key-file", metavar="FILE", help="Use the long-lived key in FILE instead of a code."
    ),
]


@app.command("new")
def new(
    key_file: KeyFile = None,
    as_json: AsJson = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Leave the window open and return at once.")
    ] = False,
    home: Home = "",
) -> None:
    """Open a pairing window: show a one-time code and wait for a device that knows it.

    With --key-file the key in that file is used, and made first if the file is missing. With --json
    the code is printed and the window left open.
    """
    client = ControlClient(Path(home))
    opened = _open_window(client, key_file)
    if as_json:
        print_json({"code": opened["code"], "expires_s": opened["expires_s"]})
        return
    _explain(opened, key_file)
    if no_wait:
        return
    try:
        device = _await_device(client, opened["expires_s"])
    except KeyboardInterrupt:
        client.call("pair_cancel")
        note("The pairing window is closed.")
        raise
    say(f"Paired with {device_text(device)}.")


def _open_window(client: ControlClient, key_file: str | None) -> Json:
    if key_file is None:
        return client.call("pair_new")
    path = absolute(key_file)
    if os.path.lexists(path):
        return client.call("pair_new", key=read_key_file(path))
    # Asked first, so that nothing is made when no daemon runs.
    client.call("status")
    key = create_key_file(path, secrets.token_bytes)
    try:
        opened = client.call("pair_new", key=key)
    except BaseException:
        path.unlink()
        raise
    note(f"A new key is in {path}. Whoever has it can pair: copy it over safe ways only.")
    return opened


def _explain(opened: Json, key_file: str | None) -> None:
    lasts = duration_text(opened["expires_s"])
    if key_file is not None:
        print_lines(
            [
                "On the other device, with a copy of the key file, run:",
                "",
                f"    p2psync pair join --key-file {shown(Path(key_file).name)}",
                "",
                f"The window is open for {lasts}.",
            ]
        )
        return
    print_lines(
        [
            "On the other device run `p2psync pair join` and enter this code:",
            "",
            f"    {shown(opened['code'])}",
            "",
            f"It works once, for {lasts}. Tell it only to who should see your folders.",
        ]
    )


def _await_device(client: ControlClient, expires_s: float) -> Json:
    """The device that paired. Raises TimedOutError or RefusedError if none did."""
    # The daemon closes the window; this only ends the waiting for a daemon that does not say so.
    deadline = time.monotonic() + expires_s + 2 * _POLL_S
    told = None
    while time.monotonic() < deadline:
        result = client.call("pair_result", timeout=_POLL_S, within_s=_POLL_S + 10)
        reason = result.get("reason")
        match result["state"]:
            case "paired":
                return dict(result["device"])
            case "expired":
                raise TimedOutError(
                    reason or "The code expired unused; run `p2psync pair new` for another."
                )
            case "burned" | "cancelled" as state:
                raise RefusedError(
                    reason or f"The pairing is {state}; run `p2psync pair new` for another code."
                )
        if reason and reason != told:
            note(reason)
            told = reason
        time.sleep(_PAUSE_S)
    raise TimedOutError("No device paired in time; run `p2psync pair new` for another code.")


@app.command("join")
def join(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE",
            help="The code; better left out and entered when asked.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="HOST:PORT", help="Where the other device is, if not found."
        ),
    ] = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
    home: Home = "",
) -> None:
    """Pair with the device that shows a code: CODE, or asked for, or read from standard input."""
    if address is not None:
        from p2psync.config import parse_address

        parse_address(address, lowest_port=1)
    if key_file is not None:
        if code is not None:
            raise UsageError("Give a code or --key-file, not both.")
        key, code = read_key_file(absolute(key_file)), None
    else:
        key, code = None, _checked_code(code if code is not None else _ask_for_code())
    if not as_json:
        note("Looking for the other device…")
    client = ControlClient(Path(home))
    joined = client.call("pair_join", code=code, key=key, address=address, within_s=_JOIN_S)
    if as_json:
        print_json(joined)
    else:
        say(f"Paired with {device_text(joined['device'])}.")


def _ask_for_code() -> str:
    if not sys.stdin.isatty():
        try:
            return sys.stdin.readline(_MAX_CODE + 2)
        except UnicodeDecodeError:
            raise UsageError("Standard input holds no code: it is not text.") from None
    print("Code shown on the other device: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline(_MAX_CODE + 2)
    if not answer:
        raise P2psyncError("No code was entered.")
    return answer


def _checked_code(text: str) -> str:
    code = text.strip()
    if not code:
        raise UsageError("No code was given; enter the one that `p2psync pair new` shows.")
    if len(code) > _MAX_CODE or not code.isprintable():
        raise UsageError("That is no pairing code; enter the one that `p2psync pair new` shows.")
    return code
