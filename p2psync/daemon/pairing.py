"""Pairing as the daemon does it: one window at a time, joining by what discovery sees or by a typed
address, and the introduction by which both sides learn each other's group."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from p2psync.config import Address, format_address
from p2psync.core.ids import DeviceID, format_device_id
from p2psync.core.roster import MAX_ENCODED, Member, decode_statements
from p2psync.engine.cluster import Cluster
from p2psync.engine.membership import Membership
from p2psync.errors import NotFoundError, P2psyncError, UsageError
from p2psync.net.discovery import Discovery
from p2psync.net.identity import device_of_certificate
from p2psync.net.pairing import (
    FailedAttempt,
    PairingEnd,
    PairingHost,
    PairingOutcome,
    join,
    turn_away,
)
from p2psync.net.sighting import MAX_NAMEPLATE
from p2psync.ports import Clock, Randomness
from p2psync.protocol.pairing import PairedPeer, PairingProtocolError, PairingRefusedError
from p2psync.protocol.pairing_code import (
    PairingCode,
    PairingSecret,
    new_code,
    parse_code,
    parse_fleet_key,
)
from p2psync.protocol.pairing_wire import Refusal

Json = dict[str, Any]

FLEET_NAMEPLATE = MAX_NAMEPLATE
"""Announced by windows that take a key file: above the numbers of codes, and says nothing of the
key."""

_FIND_S = 10.0
_MAX_TRIED = 8
_JOIN_S = 60.0
"""For all addresses together: whoever asked for it waits no longer than 75 s, and nothing is to be
paired that was given up. Each address has its share, so that one that stalls hides no other."""
_TOLD_AT_ONCE = 20
"""Attempts without a guess that are logged in a row; then one a second, or strangers could fill
the log."""

_log = logging.getLogger(__name__)


class _Introduction(msgspec.Struct, frozen=True, array_like=True):
    """What each side tells the other once both have proved that they know the secret."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    roster: Annotated[bytes, Meta(max_length=MAX_ENCODED)]


class Pairing:
    def __init__(
        self,
        certificate: bytes,
        membership: Membership,
        cluster: Cluster,
        discovery: Discovery,
        clock: Clock,
        randomness: Randomness,
        *,
        ttl_s: float,
    ) -> None:
        self.port = 0
        """Where joiners come in, once it is known."""
        self._certificate = certificate
        self._membership = membership
        self._cluster = cluster
        self._discovery = discovery
        self._clock = clock
        self._randomness = randomness
        self._ttl_s = ttl_s
        self._host: PairingHost | None = None
        self._last_failure: str | None = None
        self._tellable = float(_TOLD_AT_ONCE)
        self._told_at = clock.monotonic()
        self._closing: asyncio.Task[None] | None = None

    # --- the device that shows the secret ------------------------------------------------------

    async def open(self, key: str | None) -> Json:
        """Open a window, in place of one that is open; what to show. Raises UsageError."""
        secret: PairingSecret = parse_fleet_key(key) if key else new_code(self._randomness)
        await self.close()
        host = PairingHost(
            secret,
            certificate=self._certificate,
            payload=self._introduction(),
            clock=self._clock.monotonic,
            random_bytes=self._randomness,
            accept=self._accept,
            on_failed_attempt=self._note_failure,
            ttl=self._ttl_s,
        )
        host.start()
        self._host, self._last_failure = host, None
        nameplate = secret.nameplate if isinstance(secret, PairingCode) else FLEET_NAMEPLATE
        self._discovery.announce_pairing(nameplate, self.port)
        # Ends with the window.
        self._closing = asyncio.create_task(self._withdraw_after(host))
        code = str(secret) if isinstance(secret, PairingCode) else None
        return {"code": code, "expires_s": host.expires_s}

    async def _withdraw_after(self, host: PairingHost) -> None:
        outcome = await host.result()
        _log.info("pairing window %s", outcome.end.value)
        if self._host is host:
            self._discovery.withdraw_pairing()

    async def attend(self, sock: socket.socket) -> None:
        """Take over the socket of someone who came to pair."""
        if self._host is None:
            if self._may_tell():
                _log.info("pairing refused: no window is open")
            await turn_away(sock)
        else:
            await self._host.attend(sock)

    async def _accept(self, peer: PairedPeer) -> None:
        device = await self._admit(peer)
        _log.info("paired name=%s", self._membership.name_of(device))

    def _note_failure(self, attempt: FailedAttempt) -> None:
        self._last_failure = str(attempt.error)
        if not (attempt.counted or self._may_tell()):
            return
        _log.warning(
            "pairing refused address=%s tries_left=%d reason=%s",
            attempt.address,
            attempt.failures_left,
            attempt.error,
        )

    def _may_tell(self) -> bool:
        now = self._clock.monotonic()
        self._tellable = min(float(_TOLD_AT_ONCE), self._tellable + now - self._told_at)
        self._told_at = now
        if self._tellable < 1:
            return False
        self._tellable -= 1
        return True

    @property
    def expires_s(self) -> float | None:
        """Seconds that the open window has left; None where none is open."""
        if self._host is None or self._closing is None or self._closing.done():
            return None
        return self._host.expires_s

    async def result(self, within_s: float) -> Json:
        """How the last window ended; after `within_s` seconds, that it is still open."""
        if self._host is None:
            return {"state": PairingEnd.CANCELLED.value, "reason": "No pairing window is open."}
        try:
            async with asyncio.timeout(within_s):
                outcome = await self._host.result()
        except TimeoutError:
            return {"state": "open", "reason": self._last_failure}
        return self._tell(outcome)

    def _tell(self, outcome: PairingOutcome) -> Json:
        if outcome.peer is not None:
            device = device_of_certificate(outcome.peer.certificate)
            return {"state": outcome.end.value, "device": self._row(device)}
        reasons = {
            PairingEnd.EXPIRED: "The code expired unused; run `p2psync pair new` for another.",
            PairingEnd.BURNED: "The code is void after three wrong attempts. If that was not you, "
            "somebody is guessing. Run `p2psync pair new` for another.",
            PairingEnd.CANCELLED: "The pairing window was closed.",
        }
        return {"state": outcome.end.value, "reason": reasons.get(outcome.end)}

    async def close(self) -> None:
        """Close the window if one is open."""
        if self._host is not None:
            await self._host.close()
        if self._closing is not None:
            await self._closing

    # --- the device that was told the secret ---------------------------------------------------

    async def join(self, *, code: str | None, key: str | None, address: Address | None) -> Json:
        """Pair with the device that shows the code, or has the key; that device.

        Raises UsageError, NotFoundError, RefusedError, TimedOutError.
        """
        if (code is None) == (key is None):
            raise UsageError("Give either a code or a key.")
        secret: PairingSecret = parse_fleet_key(key) if key else parse_code(code or "")
        addresses = [address] if address is not None else await self._find(secret)
        peer, at = await self._join_first(secret, addresses)
        device = await self._admit(peer)
        self._cluster.hint(device, [at])
        _log.info("paired name=%s", self._membership.name_of(device))
        return self._row(device)

    async def _find(self, secret: PairingSecret) -> Sequence[Address]:
        nameplate = secret.nameplate if isinstance(secret, PairingCode) else FLEET_NAMEPLATE
        found = await self._discovery.find_pairing(nameplate, _FIND_S)
        if not found:
            shown = f"with the number {nameplate} " if isinstance(secret, PairingCode) else ""
            raise NotFoundError(
                f"No device that waits for pairing {shown}was found on the network. Check that "
                "its code is still shown and that both devices are on one network, or give its "
                "address: --address HOST:PORT, as `p2psync status` shows it there."
            )
        return found[:_MAX_TRIED]

    async def _join_first(
        self, secret: PairingSecret, addresses: Sequence[Address]
    ) -> tuple[PairedPeer, Address]:
        failure: P2psyncError | None = None
        deadline = self._clock.monotonic() + _JOIN_S
        for number, address in enumerate(addresses):
            left = deadline - self._clock.monotonic()
            try:
                peer = await join(
                    *address,
                    secret,
                    certificate=self._certificate,
                    payload=self._introduction(),
                    random_bytes=self._randomness,
                    timeout=max(1.0, left / (len(addresses) - number)),
                )
            except PairingRefusedError as error:
                # The next address may be the same device's, and each wrong try counts there. For
                # a key it does not matter: nobody can guess one.
                if isinstance(secret, PairingCode) and str(error) == Refusal.WRONG.sentence:
                    raise
                failure = error
            except P2psyncError as error:
                _log.info("pairing failed address=%s reason=%s", format_address(address), error)
                failure = failure or error
            else:
                return peer, address
        assert failure is not None, "there is at least one address"
        raise failure

    # --- both ------------------------------------------------------------------------------------

    def _introduction(self) -> bytes:
        return msgspec.msgpack.encode(
            _Introduction(self._membership.own_name, self._membership.encoded())
        )

    async def _admit(self, peer: PairedPeer) -> DeviceID:
        try:
            said = msgspec.msgpack.decode(peer.payload, type=_Introduction)
            statements = decode_statements(said.roster)
            device = device_of_certificate(peer.certificate)
        except (msgspec.MsgspecError, ValueError) as error:
            raise PairingProtocolError(
                "The other device introduced itself in a way that this one does not understand. "
                "Update the older of the two."
            ) from error
        await self._membership.admit(peer.certificate, said.name, statements)
        return device

    def _row(self, device: DeviceID) -> Json:
        member: Member | None = self._membership.members.get(device)
        name = member.name if member is not None else self._membership.name_of(device)
        return {"id": format_device_id(device), "name": name}
