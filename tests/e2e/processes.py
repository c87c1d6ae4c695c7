"""Commands and daemons as processes, and the one way of waiting for them."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]

STOP_S = 15.0

T = TypeVar("T")
R = TypeVar("R")


def eventually(probe: Callable[[], T], *, within: float, what: str, every: float = 0.05) -> T:
    """Ask `probe` until its answer is true-ish and return that answer.

    A failing assertion inside `probe` counts as "not yet". Raises AssertionError with `what` and
    the last answer when `within` seconds have passed. This is the only place in the tests that
    waits by the clock.
    """
    deadline = time.monotonic() + within
    while True:
        said: object
        try:
            answer = probe()
            if answer:
                return answer
            said = answer
        except (AssertionError, FileNotFoundError) as error:
            said = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:g} s: {what}\nlast seen: {said}")
        time.sleep(every)


def in_parallel(action: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`action` on every item at once; results in order, the first failure raised."""
    listed = list(items)
    with ThreadPoolExecutor(max_workers=max(1, len(listed))) as pool:
        return list(pool.map(action, listed))


@dataclass(frozen=True, slots=True)
class Result:
    """How one command ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        shown = " ".join(self.arguments)
        return f"`p2psync {shown}` ended with {self.code}\nout: {self.out}\nerr: {self.err}"


def environment(home: Path) -> dict[str, str]:
    """The variables a process of ours gets: none that could lead out of the test's directory."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


def end(process: subprocess.Popen[Any]) -> None:
    """Make sure that a process of ours is gone: politely first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
