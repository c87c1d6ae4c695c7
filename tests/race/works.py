"""The works that programs race in. A scenario is a tree that goes through one work after another
on the same devices, so that nothing is prepared twice."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path

from tests.e2e.trees import incompressible, write_incompressible, write_many_files

_MIB = 1 << 20
_BIG = "big.bin"
_SHELF = 100
TMPFS = Path("/dev/shm")


class Kind(Enum):
    COLD = "cold"
    """The change is made while nothing runs. The clock runs from the start of all programs until
    the trees are the same and all of them rest."""
    EDITS = "edits"
    """Daemons run and rest. The clock runs from each edit until it is visible on the peer."""
    IDLE = "idle"
    """Daemons run and nothing happens, for as long as the sizes say."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the works are."""

    files: int = 10_000
    big: int = 512 * _MIB
    inserted: int = 960
    appended: int = _MIB
    edits: int = 20
    idle_s: float = 30.0
    unchanged: int = 100_000
    most: int = 1_000_000

    def scaled(self, by: float) -> "Sizes":
        """All of them multiplied, and none is less than one, or a second in a hundred."""
        values = {one.name: getattr(self, one.name) * by for one in fields(self)}
        idle = max(0.01, values.pop("idle_s"))
        return replace(
            self, idle_s=idle, **{name: max(1, round(value)) for name, value in values.items()}
        )


@dataclass(frozen=True, slots=True)
class Work:
    """`change` is made to the author's root before the clock runs."""

    name: str
    title: str
    kind: Kind = Kind.COLD
    change: Callable[[Path], None] = lambda root: None


@dataclass(frozen=True, slots=True)
class Scenario:
    """Works in their order. Whoever cannot do one of them does none of those after it."""

    works: Sequence[Work]
    devices: int = 2
    place: Path | None = None
    """Where it has to be, if not where the person wants it."""
    asked_for: bool = False
    """Left out unless it is named."""


def scenarios(sizes: Sizes) -> list[Scenario]:
    small = f"{_number(sizes.files)} files of 4 KiB"
    big = f"one file of {_bytes(sizes.big)}"
    unchanged = f"{_number(sizes.unchanged)} files of 64 bytes"
    most = f"{_number(sizes.most)} files, nine in ten empty"

    def fill_small(root: Path) -> None:
        write_many_files(root, sizes.files, size=4096, seed=1)

    def fill_big(root: Path) -> None:
        write_incompressible(root / _BIG, sizes.big, seed=2)

    return [
        Scenario(
            [
                Work("small", f"{small}, first sync", change=fill_small),
                Work("move", f"{_number(sizes.files)} files moved", change=_move),
                Work("edit", f"{sizes.edits} edits, each until it is visible", Kind.EDITS),
                Work("idle", f"idle for {sizes.idle_s:g} s with {small}", Kind.IDLE),
            ]
        ),
        Scenario(
            [
                Work("big", f"{big}, first sync", change=fill_big),
                Work(
                    "insert",
                    f"{_bytes(sizes.inserted)} inserted in front of it",
                    change=lambda root: _insert(root, sizes.inserted),
                ),
                Work(
                    "append",
                    f"{_bytes(sizes.appended)} appended to it",
                    change=lambda root: _append(root, sizes.appended),
                ),
                Work("copy", "a copy of it beside it", change=_copy),
            ]
        ),
        Scenario([Work("small-to-3", f"{small}, to 3 peers", change=fill_small)], devices=4),
        Scenario([Work("big-to-3", f"{big}, to 3 peers", change=fill_big)], devices=4),
        Scenario(
            [
                Work(
                    "many",
                    f"{unchanged}, first sync",
                    change=lambda root: write_many_files(root, sizes.unchanged, size=64, seed=3),
                ),
                Work("restart", f"{unchanged}, nothing changed"),
            ]
        ),
        Scenario(
            [
                Work(
                    "million",
                    f"{most}, first sync, in memory",
                    change=lambda root: _mostly_empty(root, sizes.most),
                ),
                Work("million-restart", f"{most}, nothing changed, in memory"),
            ],
            place=TMPFS,
            asked_for=True,
        ),
    ]


def to_edit(root: Path, count: int) -> list[Path]:
    """Files below the root that are far from each other, relative to it; `count` of them, or all
    if they are fewer."""
    files = sorted(path.relative_to(root) for path in root.glob("moved/*/*"))
    count = min(count, len(files))
    return [files[number * len(files) // count] for number in range(count)]


def content_of_edit(number: int) -> bytes:
    return incompressible(4096, seed=1000 + number)


def _move(root: Path) -> None:
    shelves = [path for path in root.iterdir() if not path.name.startswith(".")]
    (root / "moved").mkdir()
    for shelf in shelves:
        shelf.rename(root / "moved" / shelf.name)


def _insert(root: Path, size: int) -> None:
    before = root / _BIG
    after = root / "anew"
    with after.open("wb") as target, before.open("rb") as source:
        target.write(incompressible(size, seed=4))
        shutil.copyfileobj(source, target, _MIB)
    os.replace(after, before)


def _append(root: Path, size: int) -> None:
    with (root / _BIG).open("ab") as file:
        file.write(incompressible(size, seed=5))


def _copy(root: Path) -> None:
    shutil.copyfile(root / _BIG, root / f"copy of {_BIG}")


def _mostly_empty(root: Path, count: int) -> None:
    for number in range(count):
        if number % _SHELF == 0:
            shelf = root / f"{number // _SHELF // _SHELF:03d}" / f"{number // _SHELF:05d}"
            shelf.mkdir(parents=True)
        (shelf / f"file-{number:07d}").write_bytes(b"" if number % 10 else f"{number}".encode())


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _bytes(value: int) -> str:
    if value >= _MIB:
        return f"{value / _MIB:.4g} MiB"
    return f"{value / 1024:.4g} KiB" if value >= 2048 else f"{value} bytes"
