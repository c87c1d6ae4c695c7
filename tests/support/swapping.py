"""Two names that change places."""

import os
from pathlib import Path

from p2psync.files.syscalls import RenameFlag, System


def swap(one: Path, other: Path) -> None:
    """In one step: the daemon may look at any moment."""
    parents = [os.open(each.parent, os.O_DIRECTORY) for each in (one, other)]
    System().rename_flagged(parents[0], one.name, parents[1], other.name, RenameFlag.EXCHANGE)
    for parent in parents:
        os.close(parent)
