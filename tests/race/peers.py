"""What a program has to offer to take part: devices of its own that can be started and asked."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ADDRESS = "127.0.0.1"
SERVER = "127.0.1.1"
"""Of the author where it is a server that never connects to others: what leaves it is counted."""


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as held:
        port: int = held.getsockname()[1]
    return port


class Failed(Exception):
    """A program did not do its work. The text is one line for the table."""


class Peers(Protocol):
    """The devices of one program, none of which runs yet. The first is the author: changes are made
    in its root only."""

    roots: Sequence[Path]

    def begin(self) -> None:
        """Start all that works. What works once and ends begins with that."""

    def rests(self, files: int) -> bool:
        """Whether all say that they have nothing left to do, with that many files. Raises Failed
        if one of them has ended that should not."""

    def processes(self) -> Sequence[Sequence[int]]:
        """Of each device the processes that were started for it and may still run."""

    def sent_by_author(self) -> int | None:
        """Bytes so far; None where nothing tells. It grows between `begin` and `stop`."""

    def index_bytes(self) -> int | None:
        """What the author keeps about its tree on the disk; None if it keeps nothing."""

    def stop(self) -> None:
        """End what runs, in order. Nothing may run."""

    def close(self) -> None:
        """End all that was started, whatever happened."""


@dataclass(frozen=True, slots=True)
class Program:
    """`version` is None where it is not installed; `make` gets a directory and how many devices."""

    name: str
    title: str
    version: str | None
    make: Callable[[Path, int], Peers]
    cannot: frozenset[str] = frozenset()
    look_every_s: float = 0.1
