"""What a synchronizer has to offer to be checked: a root on each device, and ways to disturb it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.oracle.actions import Abilities


class System(Protocol):
    """Devices are numbered from 0 and all of them run when it was made."""

    name: str
    version: str
    abilities: Abilities
    roots: Sequence[Path]

    def is_private(self, path: str) -> bool:
        """Whether a path below a root is not the users': state, history, what is being received."""

    def stop(self, device: int) -> None:
        """An orderly end; users go on there."""

    def kill(self, device: int) -> None:
        """SIGKILL."""

    def start(self, device: int) -> None:
        """Start again what was stopped or killed."""

    def part(self, group: frozenset[int]) -> None:
        """The devices of the group and the others no longer reach each other."""

    def heal(self) -> None:
        """All reach each other again."""

    def breathe(self) -> None:
        """Called after each change: whoever works in batches works on here."""

    def settle(self, within: float) -> str:
        """Return when it says that it rests and all trees are the same: an empty word. After
        `within` seconds return why not."""

    def close(self) -> None:
        """End all that was started."""
