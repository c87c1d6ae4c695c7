"""One session's protocol state: bytes in, messages out, with time as an argument (after h11 and
aioquic). It enforces that Hello comes first, keeps the link alive and notices a dead peer."""

from collections.abc import Sequence

from p2psync.protocol.messages import PROTOCOL_VERSION, AnyMessage, Hello, Ping, Pong
from p2psync.protocol.wire import FrameReader, RemoteProtocolError, encode_frame

PING_AFTER = 5.0
"""Seconds of silence from the peer after which it is asked for a sign of life."""
DEAD_AFTER = 15.0
"""Seconds of silence after which the peer counts as gone."""

Event = tuple[AnyMessage, bytes]


class PeerSilentError(RemoteProtocolError):
    """Nothing came from the peer for `DEAD_AFTER` seconds."""


class PeerConnection:
    """Not thread-safe; `now` is any clock in seconds that never goes back."""

    def __init__(self, hello: Hello, now: float) -> None:
        self._reader = FrameReader()
        self._heard = now
        self._pinged = now
        self._opening = encode_frame(hello)
        self.peer_hello: Hello | None = None

    def opening(self) -> bytes:
        """What to send before anything else."""
        return self._opening

    def receive_data(self, data: bytes | bytearray, now: float) -> None:
        self._heard = now
        self._reader.feed(data)

    def end(self) -> None:
        """Let go of what came and was not read."""
        self._reader.clear()

    def next_event(self) -> Event | None:
        """The next message with its payload, or None: more bytes are needed.

        Raises RemoteProtocolError; the connection is of no use afterwards.
        """
        event = self._reader.next_frame()
        if event is None:
            return None
        message = event[0]
        if self.peer_hello is None:
            if not isinstance(message, Hello):
                raise RemoteProtocolError("The peer spoke before it introduced itself.")
            if message.version < 1:
                raise RemoteProtocolError("The peer speaks no version of the protocol.")
            self.peer_hello = message
        elif isinstance(message, Hello):
            raise RemoteProtocolError("The peer introduced itself twice.")
        return event

    @property
    def version(self) -> int:
        """The protocol version both sides speak; after the peer's Hello."""
        return min(PROTOCOL_VERSION, self.peer_hello.version if self.peer_hello else 0)

    def next_timeout(self) -> float:
        """When to call `handle_timeout`."""
        return min(max(self._heard, self._pinged) + PING_AFTER, self._heard + DEAD_AFTER)

    def handle_timeout(self, now: float) -> Sequence[AnyMessage]:
        """Messages to send now; raises PeerSilentError when the peer counts as gone."""
        if now >= self._heard + DEAD_AFTER:
            raise PeerSilentError(f"The peer has been silent for {DEAD_AFTER:.0f} seconds.")
        if now >= max(self._heard, self._pinged) + PING_AFTER:
            self._pinged = now
            return (Ping(),)
        return ()

    @staticmethod
    def reply_to(message: AnyMessage) -> AnyMessage | None:
        """The answer that needs no thought: a Pong to a Ping."""
        return Pong() if isinstance(message, Ping) else None
