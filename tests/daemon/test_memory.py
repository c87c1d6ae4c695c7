"""Freed memory goes back to the system."""

import asyncio
import gc
import subprocess
import sys

import pytest

from p2psync.daemon import memory

_PROGRAM = """
import threading
from pathlib import Path
from p2psync.daemon.memory import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def transfer():
    # As of files: large buffers, with something small in between that stays.
    kept, buffers = [], []
    for number in range(150):
        buffers.append(bytes(range(256)) * (500 + 16 * number))
        kept.append(bytearray(600))
    left.append(kept)

left = []
before = resident()
for _ in range(2):
    transfer()
threads = [threading.Thread(target=transfer) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
freed = resident() - before
trim()
print(freed, resident() - before)
"""


@pytest.mark.slow
def test_what_large_buffers_took_goes_back_to_the_system() -> None:
    # In a process of its own, whose heap nobody else has used.
    words = [sys.executable, "-c", _PROGRAM]
    said = subprocess.run(words, capture_output=True, check=True, text=True).stdout
    freed, left = map(int, said.split())
    assert freed > 32 << 20, "the library gives it back by itself"
    assert left < 8 << 20


_HEAPS = """
import ctypes, sys, threading
from p2psync.daemon.memory import keep_to_one_heap

if sys.argv[1] == "told":
    keep_to_one_heap()
gate = threading.Barrier(4)

def allocate():
    kept = bytearray(100_000)
    gate.wait()
    return kept

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("told", "heaps"), [("told", 1), ("not told", 5)])
def test_the_threads_share_one_heap(told: str, heaps: int) -> None:
    words = [sys.executable, "-c", _HEAPS, told]
    said = subprocess.run(words, capture_output=True, check=True, text=True).stdout
    assert said.count("<heap nr=") == heaps


_BUFFERS = """
import resource, sys
from p2psync.daemon.memory import keep_to_one_heap

if sys.argv[1] == "told":
    keep_to_one_heap()
for _ in range(50):
    # The larger first: what the library learns from one does not help the other.
    for size in (4 << 20, 1 << 20, 2 << 20):
        buffer = bytearray(size)
        more = bytearray(size)
        del buffer, more
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.slow
def test_buffers_are_used_again_without_the_system() -> None:
    faults = []
    for told in ("told", "not told"):
        words = [sys.executable, "-c", _BUFFERS, told]
        said = subprocess.run(words, capture_output=True, check=True, text=True).stdout
        faults.append(int(said))
    assert faults[0] < faults[1] / 4


async def test_it_is_done_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []

    async def sleep(seconds: float) -> None:
        happened.append(seconds)
        if len(happened) > 4:
            raise asyncio.CancelledError

    monkeypatch.setattr(memory, "trim", lambda: happened.append("trimmed"))
    with pytest.raises(asyncio.CancelledError):
        await memory.return_freed_memory(sleep)
    assert happened == [memory.EVERY_S, "trimmed", memory.EVERY_S, "trimmed", memory.EVERY_S]


def test_the_collector_looks_rarely_once_all_is_started() -> None:
    before = gc.get_threshold()
    gc.disable()
    try:
        memory.collect_rarely()
        assert gc.isenabled()
        assert gc.get_threshold()[0] > 5 * before[0]
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.enable()
        gc.set_threshold(*before)
        gc.unfreeze()
