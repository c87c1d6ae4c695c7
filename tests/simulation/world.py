"""Puts the simulated devices in the place of real ones: the few names through which the daemon's
folders reach disk, watcher and databases are bound to those of the world that is being played."""

import contextlib
import functools
import itertools
import logging
import random
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from p2psync.core.entry import Entry
from p2psync.core.relpath import RelPath
from p2psync.daemon import folders as folders_module
from p2psync.engine import exchange as exchange_module
from p2psync.engine import finding as finding_module
from p2psync.engine.session import Session
from p2psync.errors import P2psyncError
from p2psync.ports import Row
from p2psync.protocol import wire
from p2psync.storage import database as database_module
from p2psync.storage import folder_index
from p2psync.storage import held as held_module
from p2psync.storage.folder_index import SqliteFolderIndex
from tests.simulation.device import Device, PlayedWatcher
from tests.simulation.disk import SimulatedDisk
from tests.simulation.loop import LIFE, SimulatedLoop
from tests.simulation.network import Network
from tests.simulation.oracle import Oracle
from tests.simulation.trace import Trace
from tests.support import memory_disk

_MEMORY = Path("/dev/shm")


class World:
    """What all devices share. `opened_world` makes it."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.source = random.Random(seed)
        self.loop = SimulatedLoop(random.Random(seed + 1))
        self.trace = Trace(self.loop.time)
        self.network = Network(self.loop, random.Random(seed + 2), self.trace)
        self.oracle = Oracle(self.trace)
        self.directory = directory
        self.known_at_once = random.Random(seed + 3).choice((2, 7, 4096))
        """So that walks have several parts, between which anything happens."""
        self.devices: list[Device] = []

    def named(self, name: str) -> Device:
        return next(device for device in self.devices if device.name == name)


@contextlib.contextmanager
def opened_world(seed: int) -> Iterator[World]:
    with (
        tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory,
        contextlib.ExitStack() as stack,
    ):
        world = World(seed, Path(directory))
        stack.callback(world.loop.finish)
        _install(world, stack)
        yield world


def _install(world: World, stack: contextlib.ExitStack) -> None:
    def put(owner: Any, name: str, value: object) -> None:
        stack.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def disk(path: Path, **_: object) -> SimulatedDisk:
        return world.named(path.name).disk

    def watcher(path: Path, *, on_change: Callable[..., None], on_problem: object) -> PlayedWatcher:
        return PlayedWatcher(world.named(path.name), on_change)

    put(finding_module, "_BATCH", world.known_at_once)
    put(finding_module, "_MUCH", world.known_at_once)
    put(memory_disk, "MOST_CHANGED", world.known_at_once)
    put(folders_module, "LocalDisk", disk)
    put(folders_module, "Watcher", watcher)

    open_index = folder_index.open_folder_index

    async def open_folder_index(path: Path, **options: Any) -> SqliteFolderIndex:
        index = await open_index(path, **options)
        world.named(path.parent.parent.name).index = index
        if index.recovered is not None:
            world.trace.violation(f"P8 {index.recovered}")
        return index

    put(folders_module, "open_folder_index", open_folder_index)

    open_file = database_module._open

    def open_database(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
        if not path.exists():
            path.write_bytes(_without_rows(open_file, tuple(migrations)))
        connection = open_file(path, migrations)
        # No other process looks at it: each read would ask the kernel for a lock. And a short log
        # is one whose pages are there already.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA wal_autocheckpoint = 64")
        world.named(path.parent.parent.name).opened(connection)
        return connection

    put(database_module, "_open", open_database)

    store = held_module.store_rows

    def store_rows(connection: sqlite3.Connection, rows: Sequence[Row], *, start: int) -> None:
        device = next(each for each in world.devices if each.owns(connection))
        replica = device.index.replica if device.index is not None else 0
        if world.oracle.knows_of_rot:
            held = held_module.held_at(connection, [row.path for row in rows])
            for row in rows:
                if row.entry.version.dot.replica == replica:
                    world.oracle.published(device.name, row, held.get(row.path))
        store(connection, rows, start=start)
        for row in rows:
            device.known[row.path] = (row.entry.kind, row.entry.content)
            world.oracle.recorded(device.name, replica, row.path, row.entry)
            world.trace.say(
                f"{device.name} records {row.path} {row.entry.kind.name} "
                f"{row.entry.version.dot.counter % 1_000_000} of {row.entry.version.author}"
            )

    put(held_module, "store_rows", store_rows)

    def pack_entries(entries: Sequence[tuple[int, RelPath, Entry]]) -> bytes:
        world.oracle.announced(LIFE.get().name, [entry for _, _, entry in entries])
        return wire.pack_entries(entries)

    put(exchange_module, "pack_entries", pack_entries)

    # Sessions stand in sets, whose order would be that of their places in memory.
    numbers = itertools.count(1)

    def number(session: Session) -> int:
        found: int = session.__dict__.setdefault("_place_in_sets", next(numbers))
        return found

    put(Session, "__hash__", number)
    stack.callback(_listen(world.trace, world.directory))


@functools.cache
def _without_rows(
    open_file: Callable[[Path, Sequence[str]], sqlite3.Connection], migrations: tuple[str, ...]
) -> bytes:
    """A new database, as a file. To make its tables costs as much as a hundred transactions."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "new.db")
        open_file(path, migrations).close()
        return path.read_bytes()


def _listen(trace: Trace, directory: Path) -> Callable[[], None]:
    """What the program logs as a fault of its own is a violation."""
    root = logging.getLogger("p2psync")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage().replace(str(directory), "")
            if record.levelno >= logging.ERROR or "drift found" in message:
                error = record.exc_info[1] if record.exc_info else None
                told = "".join(traceback.format_exception(error)) if error is not None else ""
                trace.violation(f"{message} {told}")
            elif record.levelno >= logging.INFO:
                life = LIFE.get(None)
                trace.say(f"log {life.name if life else ''}: {message}")

    handler = Handler()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return lambda: root.removeHandler(handler)


def is_expected(error: BaseException) -> bool:
    """What a person's request may come to, such as removing a member that is gone."""
    return isinstance(error, P2psyncError)
