"""The verbs of the command line and their parser.

Of the verbs only the one that was called is imported and made, where the command line tells which:
to make the parser of all takes longer than to ask the daemon.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer
from typer.exceptions import TyperException

from p2psync import __version__
from p2psync.cli.terminal import note
from p2psync.errors import UsageError

_EXIT_CODES = """\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the daemon is not running, 4 not found, 5 refused,
6 timed out, 7 wrong config or home, 8 damaged data, 130 interrupted.
"""

_GROUP = "app"
_VERBS = {
    "up": ("start", "up"),
    "init": ("start", "init"),
    "daemon": ("start", "daemon"),
    "pair": ("pair", _GROUP),
    "device": ("device", _GROUP),
    "folder": ("folder", _GROUP),
    "status": ("state", "status"),
    "wait": ("state", "wait"),
    "conflicts": ("conflicts", _GROUP),
    "approve": ("state", "approve"),
    "verify": ("verify", "verify"),
    "doctor": ("doctor", "doctor"),
}
"""Where each is: the module here, and the function or the group in it."""


def program(verb: str | None = None) -> typer.Typer:
    """The command with one of its verbs; with all where `verb` is none of them."""
    app = typer.Typer(
        name="p2psync",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        epilog=_EXIT_CODES,
    )
    app.callback()(_global_options)
    for name in [verb] if verb in _VERBS else _VERBS:
        module, what = _VERBS[name]
        found = getattr(import_module(f"p2psync.cli.{module}"), what)
        if what == _GROUP:
            app.add_typer(found, name=name)
        else:
            app.command()(found)
    return app


def _print_version(value: bool) -> None:
    if value:
        print(f"p2psync {__version__}")
        raise typer.Exit


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
    app = program(_verb_of(arguments))
    try:
        return _exit_code(
            app(list(arguments) or ["--help"], prog_name="p2psync", standalone_mode=False)
        )
    except TyperException as error:
        note(f"p2psync: {_usage_sentence(error)}")
        return error.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None


def _verb_of(arguments: Sequence[str]) -> str | None:
    """The verb, if there is nothing before it but the home."""
    left = iter(arguments)
    for argument in left:
        if argument == "--home":
            next(left, None)
        elif not argument.startswith("--home="):
            return argument
    return None


def _exit_code(result: object) -> int:
    """Commands return nothing; `typer.Exit` arrives here as its code."""
    return result if isinstance(result, int) else 0


def _usage_sentence(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    sentence = error.format_message().rstrip(".")
    if context is None:
        return f"{sentence}."
    return f"{sentence}; see `{context.command_path} --help`."
