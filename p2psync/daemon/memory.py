"""Keeps the daemon from holding memory that it no longer uses.

The C library keeps what is freed, in a heap for each thread unless it is told otherwise. With the
buffers of file transfers these grow for hours, though no more is in use than before.
"""

import asyncio
import ctypes
import gc
from collections.abc import Awaitable, Callable

EVERY_S = 60.0
_M_ARENA_MAX = -8  # malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BUFFER = 32 * 1024 * 1024
"""The most that the C library takes from its heap."""


def keep_to_one_heap() -> None:
    """For all threads and for buffers of files too, where the C library can. To be called before
    there are other threads.

    Otherwise each buffer comes from the system and goes back to it, and finding its pages takes
    longer than filling them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        # Where it does not take the first, the second alone would make it worse.
        if mallopt(_M_MMAP_THRESHOLD, _LARGEST_BUFFER):
            mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BUFFER)


async def return_freed_memory(
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Once a minute, until cancelled: in between, transfers use again what they have freed."""
    while True:
        await sleep(EVERY_S)
        gc.collect()
        await asyncio.to_thread(trim)


def collect_rarely() -> None:
    """Have the garbage collector look at what a start-up made no more, and at new objects less
    often: syncing makes many small values, and it took a tenth of the time. What circles there are,
    of sessions that have ended, goes at the next round of `return_freed_memory` at last."""
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    gc.enable()


def trim() -> None:
    """Give freed memory back to the system, where the C library can. Takes milliseconds."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
