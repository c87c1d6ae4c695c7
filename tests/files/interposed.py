"""A `System` with something between its calls: an edit, an error, or the end of the process."""

import errno
import os
from collections.abc import Callable
from typing import Any

from p2psync.files.syscalls import System

Before = Callable[[str, tuple[Any, ...]], None]
"""Told the name of a call and its arguments just before it is made; may raise in its place."""


class KilledError(BaseException):
    """Stands for kill -9: nothing that handles errors may stop it."""


class InterposedSystem(System):
    def __init__(self, before: Before | None = None, after: Before | None = None) -> None:
        self.before = before
        self.after = after

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name in ("before", "after") or name.startswith("_"):
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            if self.before is not None:
                self.before(name, args)
            result = attribute(*args, **options)
            if self.after is not None:
                self.after(name, args)
            return result

        return call


CHANGES = frozenset(
    {
        "open_staging",
        "create_staging",
        "write",
        "truncate",
        "allocate",
        "clone_range",
        "rename",
        "rename_flagged",
        "link",
        "symlink",
        "make_directory",
        "remove_directory",
        "unlink",
        "set_mode",
        "set_mtime",
        "set_mtime_of_link",
        "fsync",
        "sync_file_system",
    }
)


def _check_are_calls(*names: str) -> None:
    """Else a test whose call was renamed would go on to pass, without what it is about."""
    unknown = [name for name in names if name not in vars(System)]
    assert not unknown, f"System has no {unknown}"


def once(call: str, action: Callable[[], None], *, skip: int = 0) -> Before:
    """Do `action` at the call of that name after `skip` others."""
    _check_are_calls(call)
    left = [skip]

    def hook(name: str, _args: tuple[Any, ...]) -> None:
        if name == call:
            left[0] -= 1
            if left[0] == -1:
                action()

    return hook


def fails(
    call: str, number: int, *, only: Callable[[tuple[Any, ...]], bool] | None = None
) -> Before:
    """Each call of that name fails with that errno."""
    _check_are_calls(call)

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == call and (only is None or only(args)):
            raise OSError(number, os.strerror(number))

    return hook


def lacks(*calls: str) -> Before:
    """The file system does not have these calls."""
    _check_are_calls(*calls)

    def hook(name: str, _args: tuple[Any, ...]) -> None:
        if name in calls:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    return hook


def killed_at(count: int) -> tuple[Before, Callable[[], bool]]:
    """The process ends at the change number `count`, and nothing is called after that; the second
    tells whether it came so far."""
    made = [0]

    def hook(name: str, _args: tuple[Any, ...]) -> None:
        if name in CHANGES:
            made[0] += 1
        if made[0] > count and name != "close":
            raise KilledError

    return hook, lambda: made[0] > count
