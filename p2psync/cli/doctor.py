"""`doctor`: what on this machine keeps p2psync from working well, with or without a daemon."""

import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.options import AsJson, Home
from p2psync.cli.terminal import command_name, print_json, print_lines
from p2psync.cli.views import check_lines
from p2psync.errors import P2psyncError

Json = dict[str, Any]

_MIN_PYTHON = (3, 11)
_MIN_WATCHES = 8192
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


def doctor(as_json: AsJson = False, home: Home = "") -> None:
    """Check this machine, the home and the daemon; exits with 1 if something needs care."""
    checks = list(_checks(Path(home)))
    if as_json:
        print_json({"checks": checks})
    else:
        print_lines(check_lines(checks))
    if not all(check["ok"] for check in checks):
        raise typer.Exit(1)


def _checks(home: Path) -> Iterator[Json]:
    for name, look in _LOOKS.items():
        try:
            yield _check(name, ok=True, detail=look(home))
        except _Finding as finding:
            yield _check(name, ok=False, detail=finding.detail, next_step=finding.next_step)
        except (P2psyncError, OSError) as error:
            yield _check(name, ok=False, detail=str(error))
    try:
        found = ControlClient(home).call("doctor")["checks"]
    except P2psyncError as error:
        yield _check("daemon", ok=False, detail=str(error))
    else:
        yield _check("daemon", ok=True, detail="it is running")
        yield from found


def _check(name: str, *, ok: bool, detail: str, next_step: str | None = None) -> Json:
    return {"name": name, "ok": ok, "detail": detail, "next_step": next_step}


class _Finding(Exception):
    """A check that failed, with what to do about it."""

    def __init__(self, detail: str, next_step: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.next_step = next_step


def _python(_: Path) -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _MIN_PYTHON:
        raise _Finding(f"this is Python {version}", "Install Python 3.11 or later.")
    return f"Python {version}"


def _chunker(_: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pyfastcdc
        except ImportError as error:
            raise _Finding(f"pyfastcdc is missing ({error})", "Install p2psync again.") from None
    if pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.py"):
        raise _Finding(
            "pyfastcdc runs without its native part, 200 times slower",
            "Install pyfastcdc from a wheel that fits this machine.",
        )
    return "pyfastcdc with its native part"


def _file_events(_: Path) -> str:
    try:
        limit = int(_WATCHES.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return "this system sets no limit that can be read"
    if limit < _MIN_WATCHES:
        raise _Finding(
            f"only {limit} directories can be watched",
            "Raise it: sudo sysctl fs.inotify.max_user_watches=524288",
        )
    return f"{limit} directories can be watched"


def _home(home: Path) -> str:
    from p2psync.cli.home import is_home

    if not is_home(home):
        raise _Finding(f"{home} is not initialised", f"Run `{command_name(home)} init`.")
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        raise _Finding(
            f"{home} is open to other users (mode {mode:04o})", f"Run `chmod 700 {home}`."
        )
    return f"{home} is private"


def _config(home: Path) -> str:
    from p2psync.cli.home import load_config

    return f"valid, for the device “{load_config(home).name}”"


_LOOKS: dict[str, Callable[[Path], str]] = {
    "python": _python,
    "chunker": _chunker,
    "file events": _file_events,
    "home": _home,
    "config": _config,
}
