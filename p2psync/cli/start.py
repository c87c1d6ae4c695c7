"""`init`, `daemon` and `up`: from nothing to a running daemon."""

import contextlib
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.options import Home
from p2psync.cli.terminal import absolute, called_as, command_name, say
from p2psync.cli.text import shown
from p2psync.errors import ConfigError, UsageError


def init(
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="How other devices see this one.  [default: the host's name]",
        ),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Address to listen on; may be repeated. 127.0.0.1:0 confines all to this machine.",
        ),
    ] = None,
    home: Home = "",
) -> None:
    """Make the home of a new device: its identity and its config file."""
    from p2psync.cli.home import create_home
    from p2psync.config import FILE_NAME, parse_address

    addresses = tuple(parse_address(text) for text in listen or ())
    config = create_home(Path(home), name=name, listen=addresses or None)
    say(f"Initialised {home} for the device “{config.name}”; its settings are in {FILE_NAME}.")
    say(f"Start it with `{command_name(Path(home))} daemon`.")


def daemon(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    home: Home = "",
) -> None:
    """Run the daemon in the foreground until it is interrupted."""
    from p2psync.cli.foreground import run_daemon

    run_daemon(Path(home), verbose=verbose)


def up(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="The folder to share; made if missing.")
    ] = "~/Sync",
    home: Home = "",
) -> None:
    """Share PATH, run the daemon in the foreground and show what it does.

    Where a daemon runs already, it is given the folder, and only the view is shown.
    """
    from p2psync.cli.live import watch

    folder = absolute(path)
    client = ControlClient(Path(home))
    if client.is_running():
        hint = _share(client, folder)
        try:
            watch(client, stop=threading.Event(), hint=hint)
        except KeyboardInterrupt:
            return
    else:
        _run_and_share(client, folder)


def _run_and_share(client: ControlClient, folder: Path) -> None:
    from p2psync.cli.foreground import file_log, run_daemon_with
    from p2psync.cli.home import load_or_create
    from p2psync.cli.live import watch

    config = load_or_create(client.home)

    def accompany(stop: threading.Event) -> None:
        hint = _share(client, folder)
        watch(client, stop=stop, hint=hint)

    run_daemon_with(client.home, config, log=file_log(client.home), beside=accompany)


def _share(client: ControlClient, folder: Path) -> list[str]:
    """Add `folder` unless it is shared already; returns what to tell the user meanwhile."""
    status = client.call("status")
    made = _make_folder(folder)
    if str(folder.resolve()) not in {shared["path"] for shared in status["folders"]}:
        try:
            added = client.call("folder_add", path=str(folder))
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        say(f"Sharing {added['path']} as “{added['name']}”.")
    return _pairing_hint(client.home, status)


def _make_folder(folder: Path) -> bool:
    """Make the directory `folder`; whether that was needed. Raises UsageError or ConfigError."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a directory; choose another folder.") from None
        return False
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be made ({error.strerror}); choose another."
        ) from error
    return True


def _pairing_hint(home: Path, status: dict[str, Any]) -> list[str]:
    if status["devices"]:
        return []
    return [
        "No other device is paired yet. In another terminal here, run:",
        f"    {shown(command_name(home))} pair new",
        "It shows a code. On the other device run these, in two terminals, and enter the code:",
        f"    {shown(called_as())} up",
        f"    {shown(called_as())} pair join",
    ]
