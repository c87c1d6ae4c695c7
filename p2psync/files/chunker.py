"""Where files are cut. All of it is protocol: devices that cut the same bytes in other places give
them other content ids and send them again."""

from collections.abc import Callable, Iterator

from pyfastcdc import FastCDC, NormalizedChunking

from p2psync.core.manifest import chunk_sizes

_NORMALIZATION: NormalizedChunking = 2
"""Of Xia et al., 2016, section 3.5: sizes nearer to the average."""
_SEED = 0
"""The gear table of the paper's authors, as it is."""

ReadInto = Callable[[memoryview, int], None]
"""Fill the whole view with the bytes from the offset on, or raise."""


def is_native() -> bool:
    """Whether the compiled chunker is installed; the one in pure Python is two hundred times
    slower."""
    return not FastCDC.__module__.startswith("pyfastcdc.py")


def _nothing() -> None:
    pass


def cut(
    read_into: ReadInto,
    size: int,
    *,
    begin: int = 0,
    before_reuse: Callable[[], None] = _nothing,
) -> Iterator[memoryview]:
    """The chunks of a file of `size` bytes in order, from the one that begins at `begin`; the views
    hold until the next is asked for and `before_reuse` was called.

    Memory is bounded by two of the largest chunks. Where no cut is found in the whole file it is
    halved, for a list of chunks has two at least.
    """
    sizes = chunk_sizes(size)
    cutter = FastCDC(
        sizes.average,
        min_size=sizes.minimum,
        max_size=sizes.maximum,
        normalized_chunking=_NORMALIZATION,
        seed=_SEED,
    )
    window = memoryview(bytearray(min(2 * sizes.maximum, size - begin)))
    filled, read = 0, begin
    while read < size or filled:
        count = min(len(window) - filled, size - read)
        read_into(window[filled : filled + count], read)
        read += count
        filled += count
        used = 0
        # A cut depends on at most the largest chunk's bytes: with fewer, read on first.
        for chunk in cutter.cut_buf(window[:filled]):
            if chunk.length == size:
                yield window[: size // 2]
                yield window[size // 2 : size]
            else:
                yield window[used : used + chunk.length]
            used += chunk.length
            if filled - used < sizes.maximum and read < size:
                break
        before_reuse()
        window[: filled - used] = window[used:filled]
        filled -= used
