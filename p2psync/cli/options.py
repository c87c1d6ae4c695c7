"""The options that verbs have in common."""

from typing import Annotated

import typer

from p2psync.cli.terminal import home_or_default
from p2psync.errors import UsageError


def _choose_home(context: typer.Context, value: str) -> str:
    """The `--home` behind the verb, else the one before it, P2PSYNC_HOME, or the user's default."""
    source = context.get_parameter_source("home")
    given = value or context.find_root().obj or ""
    if not value and source is not None and source.name == "COMMANDLINE":
        raise UsageError("--home needs the path of a directory.")
    return str(home_or_default(given))


Home = Annotated[
    str,
    typer.Option(
        "--home",
        metavar="DIR",
        callback=_choose_home,
        show_default=False,
        help="State directory of the daemon.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
