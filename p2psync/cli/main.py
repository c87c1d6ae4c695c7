"""The command `p2psync`: its exit codes, and the one place that prints failures."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from p2psync.cli.terminal import home_or_default, note
from p2psync.cli.text import shown
from p2psync.errors import P2psyncError

_INTERRUPTED = 130


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
        return _carry_out(arguments)
    except P2psyncError as error:
        note(f"p2psync: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        note("p2psync: Interrupted.")
        return _INTERRUPTED
    except BrokenPipeError:
        _let_go_of_stdout()
        return 1
    except Exception as error:
        note(f"p2psync: {_report_crash(error, arguments)}")
        return 1


def _carry_out(arguments: Sequence[str]) -> int:
    plain = daemon_alone(arguments)
    if plain is None:
        from p2psync.cli.app import carry_out

        return carry_out(arguments)
    from p2psync.cli.foreground import run_daemon

    run_daemon(home_or_default(plain.home), verbose=plain.verbose)
    return 0


class PlainDaemon(NamedTuple):
    home: str
    """Empty for the user's default."""
    verbose: bool


def daemon_alone(arguments: Sequence[str]) -> PlainDaemon | None:
    """What the verb `daemon` is given; None for other command lines, and for those that are not
    plain enough to do without the parser, which would stay in the daemon's memory for months."""
    left = list(arguments)
    homes = {False: os.environ.get("P2PSYNC_HOME", ""), True: ""}
    is_daemon = verbose = False
    while left:
        word = left.pop(0)
        if word == "--home" and left and left[0] and not left[0].startswith("-"):
            # One that comes behind the verb is nearer to it.
            homes[is_daemon] = left.pop(0)
        elif word in ("--verbose", "-v") and is_daemon:
            verbose = True
        elif word == "daemon" and not is_daemon:
            is_daemon = True
        else:
            return None
    return PlainDaemon(homes[True] or homes[False], verbose) if is_daemon else None


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
    home = home_or_default(given)
    return home if home.is_dir() and os.access(home, os.W_OK) else None
