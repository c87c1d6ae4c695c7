"""Looks at all devices while they synchronize: at no moment may a file hold a part or a mix."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.oracle.judge import Violation, with_story
from tests.oracle.ledger import Ledger
from tests.oracle.tokens import describe, token_of
from tests.oracle.tree import IsPrivate, nothing_is_private, open_file
from tests.oracle.user import SCRATCH
from tests.support.beside import Beside

_PAUSE_S = 0.02
_MOST = 10

_Print = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Sight:
    device: str
    path: str
    token: int | None
    wrong: str
    is_empty: bool = False


class Sampler(Beside):
    """`look` looks once; inside a `with` block a thread does it all the time."""

    def __init__(
        self, roots: Mapping[str, Path], is_private: IsPrivate = nothing_is_private
    ) -> None:
        super().__init__()
        self.files_read = 0
        self._roots = roots
        self._is_private = is_private
        self._known: dict[tuple[str, str], _Print] = {}
        self._sights: set[Sight] = set()
        self._lock = threading.Lock()

    def _run(self) -> None:
        while not self._stop.is_set():
            for device in self._roots:
                began = time.monotonic()
                self.look(device)
                # Never more than half of a processor: it is the others that are looked at.
                self._stop.wait(max(_PAUSE_S, time.monotonic() - began))

    def look(self, device: str) -> None:
        """Read every file that changed since the last look."""
        root = os.fspath(self._roots[device])
        for path in _files(root, "", self._is_private):
            sight = self._sight(device, root, path)
            if sight is not None:
                with self._lock:
                    self._sights.add(sight)

    def _sight(self, device: str, root: str, path: str) -> Sight | None:
        try:
            fd = open_file(os.path.join(root, path))
        except OSError:
            return None
        with os.fdopen(fd, "rb", buffering=0) as file:
            print_ = _fingerprint(fd)
            if self._known.get((device, path)) == print_:
                return None
            content = file.readall()
            self.files_read += 1
            token = token_of(content)
            if token is None:
                # A single write, seen from a second processor, is not atomic. What a program
                # leaves half written stays so for longer than it takes to read it again.
                file.seek(0)
                if file.readall() != content or _fingerprint(fd) != print_:
                    return None
            elif _fingerprint(fd) == print_:
                self._known[device, path] = print_
            wrong = "" if token is not None else describe(content)
            return Sight(device, path, token, wrong, is_empty=not content)

    def verdict(self, ledger: Ledger) -> list[Violation]:
        """What was seen since the last verdict and never was a user's."""
        with self._lock:
            sights, self._sights = self._sights, set()
        found = [one for sight in sights for one in _judge(sight, ledger)]
        return [with_story(one, ledger) for one in found[:_MOST]]

    def forget(self) -> None:
        """Drop what was seen so far: it was judged, or is not to be."""
        with self._lock:
            self._sights.clear()


def _judge(sight: Sight, ledger: Ledger) -> Iterator[Violation]:
    name = sight.path.rpartition("/")[2]
    if name.startswith(SCRATCH) or (sight.is_empty and sight.path in ledger.torn_paths):
        return
    if sight.token is None:
        text = f"for a moment it held {sight.wrong}"
        yield Violation("P5", sight.device, sight.path, text)
    elif (
        sight.path in ledger.own_paths
        and (sight.token, sight.path) not in ledger.places
        and not ledger.came_along(sight.token, sight.path)
    ):
        text = f"for a moment it held token {sight.token}, which nobody ever wrote there"
        yield Violation("P5", sight.device, sight.path, text, (sight.token,))


def _files(root: str, below: str, is_private: IsPrivate) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, below)) as entries:
            listed = list(entries)
    except OSError:
        return
    for entry in listed:
        path = f"{below}/{entry.name}" if below else entry.name
        if is_private(path):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(root, path, is_private)
        elif entry.is_file(follow_symlinks=False):
            yield path


def _fingerprint(fd: int) -> _Print:
    status = os.fstat(fd)
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
