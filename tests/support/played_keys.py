"""Devices whose keys are played: whoever knows a certificate could sign for it here."""

import hashlib
import hmac

import msgspec

from p2psync.core.ids import DeviceID
from p2psync.core.roster import OwnDevice
from p2psync.core.statements import SIGNED_FOR, Signed, Statement


def device_of(certificate: bytes) -> DeviceID:
    if not certificate.startswith(b"certificate of "):
        raise ValueError("it is not a certificate")
    return DeviceID(hashlib.sha256(certificate).digest())


def verify(certificate: bytes, signature: bytes, data: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(certificate, data, "sha256"), signature)


def own_device(name: str) -> OwnDevice:
    certificate = b"certificate of " + name.encode()
    return OwnDevice(
        device=device_of(certificate),
        certificate=certificate,
        sign=lambda data: hmac.digest(certificate, data, "sha256"),
        verify=verify,
        device_of=device_of,
    )


def signed_by(author: OwnDevice, statement: Statement) -> Signed:
    """Without asking whether it makes sense, as a hostile device would."""
    encoded = msgspec.msgpack.encode(statement)
    return Signed(encoded, author.sign(SIGNED_FOR + encoded))
