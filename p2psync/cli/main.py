"""The command `p2psync`: its verbs, its exit codes, and the one place that prints failures.

Of the verbs only the one that was called is imported and made, where the command line tells which:
to make the parser of all takes longer than to ask the daemon.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from p2psync import __version__
from p2psync.cli.options import absolute, note
from p2psync.cli.text import shown
from p2psync.errors import P2psyncError, UsageError

_INTERRUPTED = 130

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


def run() -> None:
    """Console entry: never returns, and never shows a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a name is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_stdout()
        code = 1
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code."""
    try:
        app = program(_verb_of(arguments))
        return _exit_code(
            app(list(arguments) or ["--help"], prog_name="p2psync", standalone_mode=False)
        )
    except P2psyncError as error:
        note(f"p2psync: {error}")
        return error.exit_code
    except TyperException as error:
        note(f"p2psync: {_usage_sentence(error)}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        note("p2psync: Interrupted.")
        return _INTERRUPTED
    except BrokenPipeError:
        _let_go_of_stdout()
        return 1
    except Exception as error:
        note(f"p2psync: {_report_crash(error, arguments)}")
        return 1


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


def _let_go_of_stdout() -> None:
    """The reader has gone: keep the interpreter from complaining about it at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _report_crash(error: Exception, arguments: Sequence[str]) -> str:
    """Write the traceback where it can be found; returns the sentence that says where."""
    import traceback

    told = f"{type(error).__name__}: {shown(str(error))}"
    try:
        path = _write_crash("".join(traceback.format_exception(error)), arguments)
    except OSError as trouble:
        return f"Something unforeseen went wrong ({told}), and no report could be made: {trouble}."
    return f"Something unforeseen went wrong ({told}); please report it with {path}."


def _write_crash(text: str, arguments: Sequence[str]) -> Path:
    import tempfile

    home = _home_for_crash(arguments)
    if home is not None:
        path = home / "crash.log"
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    else:
        handle, name = tempfile.mkstemp(prefix="p2psync-crash-", suffix=".log")
        path = Path(name)
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


def _home_for_crash(arguments: Sequence[str]) -> Path | None:
    """The home of the command line, if there is one to write to."""
    given = os.environ.get("P2PSYNC_HOME", "")
    for at, argument in enumerate(arguments):
        if argument == "--home" and at + 1 < len(arguments):
            given = arguments[at + 1]
        elif argument.startswith("--home="):
            given = argument.removeprefix("--home=")
    if not given:
        import platformdirs

        given = platformdirs.user_state_dir("p2psync")
    home = absolute(given)
    return home if home.is_dir() and os.access(home, os.W_OK) else None
