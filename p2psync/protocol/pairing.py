"""Pairing as two state machines: bytes in, bytes out, no socket and no clock.

    joiner → host   hello: certificate
    host → joiner   hello: certificate, PAKE element
    joiner → host   PAKE element, confirmation tag
    host → joiner   confirmation tag, sealed payload      (only once the joiner's tag is right)
    joiner → host   sealed payload
    host → joiner   done

The PAKE is SPAKE2 on Ed25519 (`spake2`; RFC 9382 in spirit), joiner A and host B. Its identities
are the SHA-256 fingerprints of both certificates, so a code admits exactly the two devices that
spoke. Each connection gives a liar one guess. HKDF-SHA256 makes a key for each use from the SPAKE2
key; tags are HMAC-SHA256 over all bytes exchanged so far; payloads are sealed with AES-256-GCM
under keys used once.

Certificates are shown to whoever connects, payloads only to who knows the secret.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2psync.errors import P2psyncError
from p2psync.protocol.pairing_code import PairingSecret
from p2psync.protocol.pairing_wire import (
    FROM_HOST,
    FROM_JOINER,
    MAX_CERTIFICATE,
    MAX_FRAME,
    MAX_PAYLOAD,
    PAIRING_VERSION,
    HostConfirm,
    HostDone,
    HostHello,
    HostRefusal,
    JoinerConfirm,
    JoinerHello,
    JoinerPayload,
    PairingProtocolError,
    PairingRefusedError,
    Refusal,
    Stream,
    decode,
    malformed,
)

if TYPE_CHECKING:
    # It works out its constants when it is imported, a tenth of the daemon's start, and most
    # daemons pair with nobody.
    from spake2 import SPAKE2_A, SPAKE2_B

__all__ = [
    "MAX_PAYLOAD",
    "HostPairing",
    "JoinerPairing",
    "PairedPeer",
    "PairingProtocolError",
    "PairingRefusedError",
    "Refusal",
]

_FIELD_PRIME = 2**255 - 19


@dataclass(frozen=True, slots=True)
class PairedPeer:
    """The device at the other end, which knew the secret: its certificate (DER), and what it
    said of itself."""

    certificate: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Keys:
    """One key for each use, from the SPAKE2 key and a hash of all that led to it."""

    shared: bytes
    agreement: bytes

    def tag(self, role: str, transcript: bytes) -> bytes:
        return hmac.digest(self._derive(f"{role} tag"), transcript, "sha256")

    def seal(self, role: str, payload: bytes) -> bytes:
        return AESGCM(self._derive(f"{role} seal")).encrypt(bytes(12), payload, None)

    def open(self, role: str, sealed: bytes) -> bytes:
        """Raises PairingProtocolError unless the other side sealed exactly this."""
        try:
            return AESGCM(self._derive(f"{role} seal")).decrypt(bytes(12), sealed, None)
        except InvalidTag:
            raise malformed() from None

    def _derive(self, use: str) -> bytes:
        info = f"p2psync pairing 1 {use}".encode("ascii")
        return HKDF(algorithm=SHA256(), length=32, salt=self.agreement, info=info).derive(
            self.shared
        )


class _Pairing:
    """What both roles have in common. After any error the machine is over."""

    def __init__(
        self,
        secret: PairingSecret,
        *,
        certificate: bytes,
        payload: bytes,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        if len(payload) > MAX_PAYLOAD or len(certificate) > MAX_CERTIFICATE:
            raise ValueError("the payload or the certificate is too big to pair with")
        self._password = secret.password
        self._certificate = certificate
        self._payload = payload
        self._random_bytes = random_bytes
        self._stream = Stream()
        self._keys: _Keys | None = None
        self._hellos = b""
        """The transcript once both hellos are in it."""
        self._over = False
        self.peer: PairedPeer | None = None
        """The other side, once it has proved that it knows the secret and sent its payload."""

    def receive_data(self, data: bytes) -> None:
        """Take in bytes of the other side; `data_to_send` may have an answer, also after an error.

        Takes some 50 ms of arithmetic. Raises PairingRefusedError where a side does not know the
        secret or says no, PairingProtocolError for anything that does not belong here.
        """
        if self._over:
            raise malformed()
        self._stream.receive(data)
        try:
            while (frame := self._stream.next_frame()) is not None:
                self._receive_frame(frame)
        except P2psyncError:
            self._over = True
            raise

    def receive_eof(self) -> None:
        """The other side hung up; raises PairingProtocolError."""
        self._over = True
        raise PairingProtocolError(
            "The other device hung up before the pairing was done. Try again, and if that fails "
            "look at the log of the other device."
        )

    def data_to_send(self) -> bytes:
        """What is to go to the other side now; empty if nothing is."""
        return self._stream.take_outgoing()

    def _receive_frame(self, frame: bytes) -> None:
        raise NotImplementedError

    def _agree(self, pake: "SPAKE2_A | SPAKE2_B", theirs: bytes, joiners: bytes) -> _Keys:
        """Finish SPAKE2 with their element. `_hellos` and the joiner's element are what led here;
        the host's element is in its hello."""
        from spake2 import SPAKEError
        from spake2.ed25519_basic import NotOnCurve

        # `spake2` takes spellings of points that nobody makes, the neutral element among them.
        y = int.from_bytes(theirs[1:], "little") & ((1 << 255) - 1)
        if not 1 < y < _FIELD_PRIME:
            raise malformed()
        try:
            shared = pake.finish(theirs)
        except (SPAKEError, NotOnCurve, ValueError):
            raise malformed() from None
        return _Keys(shared, hashlib.sha256(self._hellos + joiners).digest())


class HostPairing(_Pairing):
    """One attempt of a joiner, at the device that shows the code.

    When `peer` is set the caller decides: `accept` or `refuse`.
    """

    def __init__(
        self,
        secret: PairingSecret,
        *,
        certificate: bytes,
        payload: bytes,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        super().__init__(
            secret, certificate=certificate, payload=payload, random_bytes=random_bytes
        )
        self._pake: SPAKE2_B | None = None
        self._joiner = b""
        self._accepted = False

    @property
    def confirmed(self) -> bool:
        """The joiner has proved that it knows the secret."""
        return self._keys is not None

    @property
    def cost_a_guess(self) -> bool:
        """If it ends like this the joiner has had a guess: it saw our element, or could have, and
        did not confirm. Hanging up counts as well."""
        return self._pake is not None and not self.confirmed

    def accept(self) -> None:
        """Tell the joiner that it is in. Once only, when `peer` is set."""
        if self._keys is None or self.peer is None or self._accepted or self._over:
            raise RuntimeError("there is no peer to accept")
        self._accepted = True
        self._stream.send(HostDone(self._keys.tag("done", self._stream.transcript())))

    def refuse(self, reason: Refusal) -> None:
        """Tell the joiner why not; the attempt is over."""
        self._over = True
        self._stream.send(HostRefusal(reason))

    def _receive_frame(self, frame: bytes) -> None:
        message = decode(frame, FROM_JOINER)
        if isinstance(message, JoinerHello) and self._pake is None:
            self._answer(message)
        elif isinstance(message, JoinerConfirm) and self._pake is not None and not self._keys:
            self._confirm(message, self._pake)
        elif isinstance(message, JoinerPayload) and self._keys is not None and not self.peer:
            self.peer = PairedPeer(self._joiner, self._keys.open("joiner", message.sealed))
        else:
            raise malformed()

    def _answer(self, hello: JoinerHello) -> None:
        if hello.version != PAIRING_VERSION:
            self.refuse(Refusal.VERSION)
            raise PairingRefusedError(Refusal.VERSION.sentence)
        if hello.certificate == self._certificate:
            self.refuse(Refusal.ITSELF)
            raise PairingRefusedError(Refusal.ITSELF.sentence)
        from spake2 import SPAKE2_B

        self._joiner = hello.certificate
        self._pake = SPAKE2_B(
            self._password,
            idA=_fingerprint(self._joiner),
            idB=_fingerprint(self._certificate),
            entropy_f=self._random_bytes,
        )
        self._stream.send(HostHello(PAIRING_VERSION, self._certificate, self._pake.start()))
        self._hellos = self._stream.transcript()

    def _confirm(self, message: JoinerConfirm, pake: "SPAKE2_B") -> None:
        keys = self._agree(pake, message.element, message.element)
        if not hmac.compare_digest(keys.tag("joiner", keys.agreement), message.tag):
            self.refuse(Refusal.WRONG)
            raise PairingRefusedError(
                "A device tried to pair with a wrong code or key. If that was you, compare the "
                "code and try again; if not, somebody is guessing."
            )
        self._keys = keys
        self._stream.max_frame = MAX_FRAME
        tag = keys.tag("host", self._stream.transcript())
        self._stream.send(HostConfirm(tag, keys.seal("host", self._payload)))


class JoinerPairing(_Pairing):
    """An attempt at the device that was told the secret. `peer` is set when the host said done."""

    def __init__(
        self,
        secret: PairingSecret,
        *,
        certificate: bytes,
        payload: bytes,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        super().__init__(
            secret, certificate=certificate, payload=payload, random_bytes=random_bytes
        )
        self._host = b""
        self._opened: PairedPeer | None = None
        self._stream.send(JoinerHello(PAIRING_VERSION, certificate))

    def _receive_frame(self, frame: bytes) -> None:
        message = decode(frame, FROM_HOST)
        if isinstance(message, HostRefusal):
            raise PairingRefusedError(message.reason.sentence)
        if isinstance(message, HostHello) and self._keys is None:
            self._prove(message)
        elif isinstance(message, HostConfirm) and self._keys is not None and not self._opened:
            self._check(message, self._keys)
        elif isinstance(message, HostDone) and self._keys is not None and not self.peer:
            self._finish(message, self._keys)
        else:
            raise malformed()

    def _prove(self, hello: HostHello) -> None:
        if hello.version != PAIRING_VERSION:
            raise PairingRefusedError(Refusal.VERSION.sentence)
        if hello.certificate == self._certificate:
            raise PairingRefusedError(Refusal.ITSELF.sentence)
        from spake2 import SPAKE2_A

        self._host = hello.certificate
        self._hellos = self._stream.transcript()
        pake = SPAKE2_A(
            self._password,
            idA=_fingerprint(self._certificate),
            idB=_fingerprint(self._host),
            entropy_f=self._random_bytes,
        )
        element = pake.start()
        self._keys = self._agree(pake, hello.element, element)
        tag = self._keys.tag("joiner", self._keys.agreement)
        self._stream.send(JoinerConfirm(element, tag))
        self._stream.max_frame = MAX_FRAME

    def _check(self, message: HostConfirm, keys: _Keys) -> None:
        if not hmac.compare_digest(keys.tag("host", self._stream.before_last_frame), message.tag):
            raise PairingRefusedError(
                "The device at that address does not know the code or key: it is not the one that "
                "shows it. Give the right address with --address, or ask for a new code."
            )
        self._opened = PairedPeer(self._host, keys.open("host", message.sealed))
        self._stream.send(JoinerPayload(keys.seal("joiner", self._payload)))

    def _finish(self, message: HostDone, keys: _Keys) -> None:
        if self._opened is None or not hmac.compare_digest(
            keys.tag("done", self._stream.before_last_frame), message.tag
        ):
            raise malformed()
        self.peer = self._opened


def _fingerprint(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()
