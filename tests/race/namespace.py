"""A network namespace of our own, which nothing can leave."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from tests.race.measuring import COUNTER, TABLE
from tests.race.peers import SERVER

_INSIDE = "P2PSYNC_RACE_INSIDE"


def enter(arguments: Sequence[str]) -> None:
    """Start this program again where there is nothing but a loopback, and return there. Raises
    ValueError with a sentence where that cannot be."""
    if os.environ.pop(_INSIDE, ""):
        _prepare()
        return
    unshare = shutil.which("unshare")
    if unshare is None:
        raise ValueError("The race needs unshare; install util-linux.")
    rights = [] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"]
    again = [sys.executable, "-P", "-m", "tests.race.cli", *arguments]
    os.execve(unshare, [unshare, "--net", *rights, *again], {**os.environ, _INSIDE: "1"})


def _prepare() -> None:
    # Devices that were never paired with each other find each other by multicast.
    for line in ("link set lo up multicast on", "route add 224.0.0.0/4 dev lo"):
        if why := _run("ip", *line.split()):
            raise ValueError(f"The loopback of the race's namespace cannot be set up: {why}")
    # Without nftables one figure of the programs that do not tell it themselves is missing.
    hook = "{ type filter hook output priority 0; }"
    for words in (
        ("table", "inet", TABLE),
        ("counter", "inet", TABLE, COUNTER),
        ("chain", "inet", TABLE, "leaving", hook),
        (
            "rule",
            "inet",
            TABLE,
            "leaving",
            "ip",
            "saddr",
            SERVER,
            "counter",
            "name",
            COUNTER,
        ),
    ):
        if _run("nft", "add", *words):
            return


def _run(*words: str) -> str:
    """Why it failed, or an empty word."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{words[0]}: {error.strerror}."
    return "" if done.returncode == 0 else done.stderr.strip() or f"{words[0]} failed."
