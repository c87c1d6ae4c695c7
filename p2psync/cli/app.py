"""The verbs of the command line and their parser."""

from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from p2psync import __version__
from p2psync.cli import conflicts, device, doctor, folder, pair, start, state, verify
from p2psync.cli.terminal import note
from p2psync.errors import UsageError

_EXIT_CODES = """\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the daemon is not running, 4 not found, 5 refused,
6 timed out, 7 wrong config or home, 8 damaged data, 130 interrupted.
"""

app = typer.Typer(
    name="p2psync",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=_EXIT_CODES,
)
app.command()(start.up)
app.command()(start.init)
app.command()(start.daemon)
app.add_typer(pair.app, name="pair")
app.add_typer(device.app, name="device")
app.add_typer(folder.app, name="folder")
app.command()(state.status)
app.command()(state.wait)
app.add_typer(conflicts.app, name="conflicts")
app.command()(state.approve)
app.command()(verify.verify)
app.command()(doctor.doctor)


def _print_version(value: bool) -> None:
    if value:
        print(f"p2psync {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    home: Annotated[
        str | None,
        typer.Option(
            "--home", metavar="DIR", envvar="P2PSYNC_HOME", help="State directory of the daemon."
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Keep folders the same on many devices, without a server."""
    if home == "":
        raise UsageError("--home needs the path of a directory.")
    context.obj = home


def carry_out(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code. Raises P2psyncError."""
    try:
        return _exit_code(
            app(list(arguments) or ["--help"], prog_name="p2psync", standalone_mode=False)
        )
    except TyperException as error:
        note(f"p2psync: {_usage_sentence(error)}")
        return error.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None


def _exit_code(result: object) -> int:
    """Commands return nothing; `typer.Exit` arrives here as its code."""
    return result if isinstance(result, int) else 0


def _usage_sentence(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    sentence = error.format_message().rstrip(".")
    if context is None:
        return f"{sentence}."
    return f"{sentence}; see `{context.command_path} --help`."
