"""Clock, chance, network, and what the device as a whole remembers."""

from collections.abc import Sequence
from typing import Protocol

from p2psync.core.ids import DeviceID
from p2psync.errors import P2psyncError

# --- clock and randomness ---------------------------------------------------------------------


class Clock(Protocol):
    def now_ns(self) -> int:
        """Wall-clock nanoseconds since 1970; may step either way."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class Randomness(Protocol):
    def __call__(self, size: int, /) -> bytes:
        """`size` unpredictable bytes."""


# --- network ----------------------------------------------------------------------------------


class Link(Protocol):
    """An authenticated byte stream to one peer."""

    @property
    def peer(self) -> DeviceID: ...
    @property
    def remote_address(self) -> str:
        """ "HOST:PORT", for people and as a hint for later."""

    @property
    def bytes_received(self) -> int:
        """Off the network so far, encryption included."""

    @property
    def bytes_sent(self) -> int: ...
    async def receive(self) -> bytes | bytearray:
        """The next bytes; empty at a clean end. Raises P2psyncError or OSError when cut."""

    async def send(self, data: Sequence[bytes | memoryview]) -> None:
        """All of the buffers in order; waits while the peer is slow."""

    async def close(self) -> None: ...


Address = tuple[str, int]
"""Host (IP address or name; IPv6 without brackets) and TCP port."""


class DialRefusedError(P2psyncError):
    """One side does not accept the other; `str` says which and what to do."""


class Dialer(Protocol):
    async def dial(
        self,
        host: str,
        port: int,
        *,
        expect: DeviceID,
        timeout: float,  # noqa: ASYNC109 - one bound for look-up, connection and handshake
    ) -> Link:
        """A link to that paired device, owned by the caller. Raises DialRefusedError when a side
        does not accept the other, another P2psyncError when no link came about."""


# --- what the device as a whole remembers -----------------------------------------------------


class RosterStore(Protocol):
    async def roster(self) -> bytes:
        """As last saved; empty when none ever was."""

    async def save_roster(self, body: bytes) -> None:
        """Durable on return."""


class AddressStore(Protocol):
    async def addresses(self) -> dict[DeviceID, list[tuple[str, int, int | None]]]:
        """(host, port, when it last worked in ns) by device, the most promising first."""

    async def save_address(
        self, device: DeviceID, host: str, port: int, last_ok_ns: int | None
    ) -> None: ...
