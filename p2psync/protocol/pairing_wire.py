"""What is said while pairing, how it is framed, and how it can fail.

A frame is a length (u32, big endian) and a msgpack struct, small until the other side has proved
that it knows the secret.
"""

import hashlib
from enum import Enum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from p2psync.errors import P2psyncError, RefusedError

PAIRING_VERSION = 1
MAX_PAYLOAD = 4 * 1024 * 1024
MAX_CERTIFICATE = 2048
MAX_FRAME_OF_STRANGER = 4096
MAX_FRAME = MAX_PAYLOAD + 1024
_SEAL_OVERHEAD = 16


class PairingRefusedError(RefusedError):
    """The pairing was turned down: wrong code, expired, burned, used, or not to be."""


class PairingProtocolError(P2psyncError):
    """What arrived is not what p2psync says when pairing, or the connection ended in between."""


class Refusal(Enum):
    """Why a host turns a joiner down, as told on the wire."""

    WRONG = "wrong"
    EXPIRED = "expired"
    BURNED = "burned"
    USED = "used"
    VERSION = "version"
    ITSELF = "itself"
    DECLINED = "declined"
    CLOSED = "closed"

    @property
    def sentence(self) -> str:
        """For the person at the joining device."""
        return _SENTENCES[self]


_NEW_CODE = "Run `p2psync pair new` on the other device for a new code."
_SENTENCES = {
    Refusal.WRONG: "The code or key is wrong. Compare it with the one on the other device and try "
    "again; after a few wrong ones the code is void.",
    Refusal.EXPIRED: f"The code has expired. {_NEW_CODE}",
    Refusal.BURNED: f"The code is void after too many wrong tries. {_NEW_CODE}",
    Refusal.USED: f"The code was used already, by another device. {_NEW_CODE}",
    Refusal.VERSION: "The two devices run versions of p2psync that cannot pair. Update the older.",
    Refusal.ITSELF: "The other device has the identity of this one. If its home was copied from "
    "here, remove device.key and device.crt there, so that it becomes a device of its own.",
    Refusal.CLOSED: "No pairing window is open on the other device: the code expired, was used, "
    f"or is void after wrong tries. {_NEW_CODE}",
    Refusal.DECLINED: "The other device knew the code but did not let this one in. "
    "Its log and `p2psync doctor` there say why.",
}


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of all messages. Tags name the sender's role, so that none can be sent back to it."""


Certificate = Annotated[bytes, Meta(min_length=1, max_length=MAX_CERTIFICATE)]
Element = Annotated[bytes, Meta(min_length=33, max_length=33)]
Tag = Annotated[bytes, Meta(min_length=32, max_length=32)]
Sealed = Annotated[bytes, Meta(min_length=_SEAL_OVERHEAD, max_length=MAX_PAYLOAD + _SEAL_OVERHEAD)]


class JoinerHello(Message, frozen=True, tag="joiner hello"):
    version: int
    certificate: Certificate


class HostHello(Message, frozen=True, tag="host hello"):
    version: int
    certificate: Certificate
    element: Element


class JoinerConfirm(Message, frozen=True, tag="joiner confirm"):
    element: Element
    tag: Tag


class HostConfirm(Message, frozen=True, tag="host confirm"):
    tag: Tag
    sealed: Sealed


class JoinerPayload(Message, frozen=True, tag="joiner payload"):
    sealed: Sealed


class HostDone(Message, frozen=True, tag="host done"):
    tag: Tag


class HostRefusal(Message, frozen=True, tag="host refusal"):
    reason: Refusal


FromJoiner = JoinerHello | JoinerConfirm | JoinerPayload
FromHost = HostHello | HostConfirm | HostDone | HostRefusal
_M = TypeVar("_M")

_encoder = msgspec.msgpack.Encoder()
FROM_JOINER = msgspec.msgpack.Decoder(FromJoiner)
FROM_HOST = msgspec.msgpack.Decoder(FromHost)


class Stream:
    """Frames out of bytes and back, and a running hash of all of them in order."""

    def __init__(self) -> None:
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._transcript = hashlib.sha256(b"p2psync pairing transcript 1\0")
        self.max_frame = MAX_FRAME_OF_STRANGER
        self.before_last_frame = b""
        """The transcript up to the frame that came last, without it."""

    def receive(self, data: bytes) -> None:
        self._incoming += data

    def next_frame(self) -> bytes | None:
        """The next whole frame; None if more bytes are needed. Raises PairingProtocolError."""
        if len(self._incoming) < 4:
            return None
        size = int.from_bytes(self._incoming[:4])
        if size > self.max_frame:
            raise malformed()
        if len(self._incoming) < 4 + size:
            return None
        frame = bytes(self._incoming[: 4 + size])
        del self._incoming[: 4 + size]
        self.before_last_frame = self.transcript()
        self._transcript.update(frame)
        return frame[4:]

    def send(self, message: Message) -> None:
        body = _encoder.encode(message)
        frame = len(body).to_bytes(4) + body
        self._transcript.update(frame)
        self._outgoing += frame

    def transcript(self) -> bytes:
        return self._transcript.digest()

    def take_outgoing(self) -> bytes:
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data


def can_be_judged(data: bytes) -> bool:
    """Whether the first bytes of a stranger hold a whole frame, or begin one that is too large."""
    size = int.from_bytes(data[:4])
    return len(data) >= 4 and (size > MAX_FRAME_OF_STRANGER or len(data) >= 4 + size)


def decode(frame: bytes, decoder: msgspec.msgpack.Decoder[_M]) -> _M:
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise malformed() from None


def malformed() -> PairingProtocolError:
    return PairingProtocolError(
        "What the other side sent is not p2psync's pairing. Check the address, and that both "
        "devices run the same version."
    )
