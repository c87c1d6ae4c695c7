"""The payload of a `ChunkReply`: chunks as they are, or each as a zstd frame of its own.

No frame knows of another chunk, so the length of one tells nothing about any other file.
"""

from collections.abc import Callable

from p2psync.protocol.messages import MISSING, ChunkReply
from p2psync.protocol.wire import MAX_PAYLOAD, RemoteProtocolError

Data = bytes | memoryview

_LEVEL = 1
"""Higher ones take twice the time for a tenth less."""


def packer() -> Callable[[bytes], bytes]:
    """What makes a chunk into a frame. Of use to one thread at a time."""
    # Takes a while, and most sessions never need it.
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL).compress


def cut_chunks(reply: ChunkReply, asked: int, payload: bytes) -> list[Data | None]:
    """The chunks of the reply to a request for so many, None for those that are missing. All of
    them together take no more memory than a payload may: what came as it is stays in it.

    Raises RemoteProtocolError. Where something is packed this takes a while.
    """
    lengths = reply.packed or reply.sizes
    if len(reply.sizes) != asked or len(lengths) != asked:
        raise RemoteProtocolError("The peer sent another number of chunks than it was asked for.")
    for size, length in zip(reply.sizes, lengths, strict=True):
        # Nothing gets larger: what would is sent as it is.
        if not (length == size == MISSING or 0 <= length <= size):
            raise RemoteProtocolError("The peer sent a chunk of an impossible size.")
    if _total(reply.sizes) > MAX_PAYLOAD or _total(lengths) != len(payload):
        raise RemoteProtocolError("The peer sent chunks whose sizes do not add up.")
    chunks: list[Data | None] = []
    whole = memoryview(payload)
    at = 0
    for size, length in zip(reply.sizes, lengths, strict=True):
        if size == MISSING:
            chunks.append(None)
            continue
        piece = whole[at : at + length]
        at += length
        chunks.append(piece if length == size else _unpack(piece, size))
    return chunks


def _total(sizes: tuple[int, ...]) -> int:
    return sum(size for size in sizes if size != MISSING)


def _unpack(frame: memoryview, size: int) -> bytes:
    import zstandard

    try:
        # The library takes as much memory as the frame says that it needs.
        told = zstandard.get_frame_parameters(frame)
        if told.content_size != size or told.window_size > MAX_PAYLOAD:
            raise RemoteProtocolError("The peer sent a packed chunk of another size than it said.")
        return zstandard.ZstdDecompressor().decompress(
            frame, max_output_size=size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"The peer sent a malformed packed chunk: {error}.") from error
