"""The statements that a roster is made of, their canonical bytes, and the limits on them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from p2psync.core.ids import DeviceID
from p2psync.core.names import name_fault

MAX_STATEMENTS = 4096
MAX_ENCODED = 4 * 1024 * 1024
MAX_CERTIFICATE = 2048
MAX_STAMP = (1 << 63) - 1
MAX_TERM = (1 << 31) - 1
_MAX_STATEMENT = 48 * 1024
_MAX_KEEPS = 1024
SIGNED_FOR = b"p2psync roster statement 1\0"
"""Before what is signed, so that no signature made for another purpose is a statement."""

_Device = Annotated[DeviceID, Meta(min_length=32, max_length=32)]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Term = Annotated[int, Meta(ge=0, le=MAX_TERM)]


class _Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    issuer: _Device
    device: _Device


class Add(_Statement, frozen=True, tag="add"):
    """The issuer vouches that the device of this certificate (DER) belongs to the group."""

    certificate: Annotated[bytes, Meta(min_length=1, max_length=MAX_CERTIFICATE)]
    name: _Name
    term: _Term = 0
    """Above the terms of all removals of the device that the issuer knew of."""


class Remove(_Statement, frozen=True, tag="remove"):
    """The device is out, whoever added it at this term or an earlier one."""

    keeps: Annotated[tuple[tuple[_Device, _Term], ...], Meta(max_length=_MAX_KEEPS)]
    """Of those it added the ones that stay, each with the latest term at which it added them;
    sorted, and each once."""
    term: _Term = 0


class Rename(_Statement, frozen=True, tag="rename"):
    """The device is called `name`, unless a statement with a higher stamp says otherwise."""

    name: _Name
    stamp: Annotated[int, Meta(ge=0, le=MAX_STAMP)]


Statement = Add | Remove | Rename


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """The canonical encoding of a statement and its issuer's signature over it."""

    statement: Annotated[bytes, Meta(max_length=_MAX_STATEMENT)]
    signature: Annotated[bytes, Meta(max_length=128)]


class _Encoded(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    statements: Annotated[tuple[Signed, ...], Meta(max_length=MAX_STATEMENTS)]


_encoder = msgspec.msgpack.Encoder()
_statement_decoder = msgspec.msgpack.Decoder(Statement)
_roster_decoder = msgspec.msgpack.Decoder(_Encoded)

encode_statement = _encoder.encode


def read_statement(signed: Signed) -> Statement | None:
    """The statement, if it is well-formed and in the one canonical encoding."""
    try:
        statement = _statement_decoder.decode(signed.statement)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if _encoder.encode(statement) != signed.statement:
        return None
    if isinstance(statement, Remove):
        return statement if list(statement.keeps) == sorted(dict(statement.keeps).items()) else None
    return statement if name_fault(statement.name) is None else None


def encode_statements(statements: frozenset[Signed]) -> bytes:
    """For disk and wire; equal sets give equal bytes."""
    return _encoder.encode(_Encoded(1, tuple(sorted(statements))))


def decode_statements(data: bytes) -> tuple[Signed, ...]:
    """What `Roster.encode` wrote, not yet verified: `Roster().merge(...)` does that.

    Raises ValueError if it is malformed or beyond the limits.
    """
    if len(data) > MAX_ENCODED:
        raise ValueError(f"a roster of {len(data)} bytes is over {MAX_ENCODED}")
    try:
        return _roster_decoder.decode(data).statements
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a roster: {error}") from error
