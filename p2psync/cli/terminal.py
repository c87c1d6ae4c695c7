"""How the verbs print, and how they understand what they are given. Nothing here is slow to import:
the daemon starts with it."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from p2psync.cli.text import shown
from p2psync.errors import UsageError


def home_or_default(given: str) -> Path:
    """The home that was given, if it is not empty, or the user's default. Raises UsageError."""
    if not given:
        import platformdirs

        given = platformdirs.user_state_dir("p2psync")
    return absolute(given)


def absolute(path: str) -> Path:
    """`path` from the caller's directory, `~` resolved; symlinks and `..` are left as they are.

    Raises UsageError.
    """
    if not path:
        raise UsageError("An empty path was given; write `.` for the current directory.")
    try:
        expanded = Path(path).expanduser()
        return expanded if expanded.is_absolute() else Path.cwd() / expanded
    except RuntimeError:
        raise UsageError(f"“{path}” names the home directory of a user who has none.") from None
    except OSError:
        raise UsageError(
            f"“{path}” cannot be found from here: the current directory is gone."
        ) from None


def print_json(value: Mapping[str, Any]) -> None:
    """One line, ASCII, at once: a reader at the other end of a pipe may be waiting for it."""
    print(json.dumps(value), flush=True)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines that are harmless already."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def say(text: str) -> None:
    """Print one line for people, harmless whatever names it holds."""
    print(shown(text), flush=True)


def note(text: str) -> None:
    """Like `say`, on standard error: what is not the command's result."""
    print(shown(text), file=sys.stderr, flush=True)


def command_name(home: Path) -> str:
    """How to call p2psync again for the same home, for hints."""
    import shlex

    import platformdirs

    usual = Path(os.environ.get("P2PSYNC_HOME") or platformdirs.user_state_dir("p2psync"))
    if home == absolute(str(usual)):
        return called_as()
    return f"{called_as()} --home {shlex.quote(str(home))}"


def called_as() -> str:
    """How the person who reads it called p2psync: from a checkout it is not on the PATH."""
    return os.environ.get("P2PSYNC_CALLED_AS") or "p2psync"
