"""What stands between two daemons on loopback and does to their bytes what networks do.

`Proxy` relays TCP. A test says what happens to the bytes from then on: they wait, they trickle, one
of them is changed, they vanish without a word. It ends with its thread, and so does every
connection through it.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self

from tests.support.beside import Beside

_PIECE = 64 * 1024
_HELD = 1 << 20
"""Bytes on their way in one direction; beyond, the sender has to wait."""


class Fault(Enum):
    NONE = auto()
    BLACKHOLE = auto()
    """Nothing comes through in either direction, and nobody is told."""
    HALF_OPEN = auto()
    """What the guest says arrives, and the host's answers vanish."""


@dataclass(eq=False)
class _Flow:
    """One direction of one connection."""

    source: socket.socket
    target: socket.socket
    from_host: bool
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    held: int = 0
    ended: bool = False


class Proxy(Beside):
    """Listens at `host` for each of `targets`, on that target's own port, and relays to it.

    A device that hears of the other's port finds it here too, because the connections that it sees
    come from `host`.
    """

    def __init__(self, host: str, *targets: tuple[str, int]) -> None:
        super().__init__()
        self._host = host
        self._targets = targets
        self._listeners: dict[socket.socket, tuple[str, int]] = {}
        self._flows: list[_Flow] = []
        self._lock = threading.Lock()
        self.delay_s = 0.0
        self.bytes_per_s = 0
        """In both directions together; 0: as fast as it can."""
        self._free_at = 0.0
        self.fault = Fault.NONE
        self.relayed = 0
        """Bytes that arrived on the other side, both directions together."""
        self.connections = 0
        self._flip_after: int | None = None
        self.flipped = 0

    def __enter__(self) -> Self:
        for target in self._targets:
            listener = socket.create_server((self._host, target[1]))
            listener.setblocking(False)
            self._listeners[listener] = target
        return super().__enter__()

    # --- what a test may do --------------------------------------------------------------------

    def cut(self) -> None:
        """End every connection, as a reset does."""
        with self._lock:
            for flow in self._flows:
                for end in (flow.source, flow.target):
                    _reset(end)
            self._flows.clear()

    def flip(self, *, after: int) -> None:
        """Change one bit of what comes, when so many more bytes have gone through."""
        with self._lock:
            self._flip_after = after

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    busy = self._step()
                if not busy:
                    time.sleep(0.001)
        finally:
            self.cut()
            for listener in self._listeners:
                listener.close()

    def _step(self) -> bool:
        moved = [self._accept(*pair) for pair in self._listeners.items()]
        moved += [self._relay(flow) for flow in list(self._flows)]
        return any(moved)

    def _accept(self, listener: socket.socket, target: tuple[str, int]) -> bool:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return False
        try:
            server = socket.create_connection(target, timeout=5, source_address=(self._host, 0))
        except OSError:
            client.close()
            return True
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._flows += [_Flow(client, server, False), _Flow(server, client, True)]
        self.connections += 1
        return True

    def _relay(self, flow: _Flow) -> bool:
        try:
            return self._take(flow) | self._give(flow)
        except BlockingIOError:
            return False
        except OSError:
            self._drop(flow)
            return True

    def _take(self, flow: _Flow) -> bool:
        if flow.ended or flow.held > _HELD:
            return False
        try:
            piece = flow.source.recv(_PIECE)
        except BlockingIOError:
            return False
        if self._vanishes(flow):
            # Also an end: the other side of a dead network hears of none.
            flow.ended = not piece
            return bool(piece)
        flow.waiting.append((time.monotonic() + self.delay_s, self._spoilt(piece)))
        flow.held += len(piece)
        flow.ended = not piece
        return True

    def _vanishes(self, flow: _Flow) -> bool:
        return self.fault is Fault.BLACKHOLE or (self.fault is Fault.HALF_OPEN and flow.from_host)

    def _spoilt(self, piece: bytes) -> bytes:
        if self._flip_after is None:
            return piece
        at, self._flip_after = self._flip_after, self._flip_after - len(piece)
        if self._flip_after >= 0:
            return piece
        self._flip_after = None
        self.flipped += 1
        return piece[:at] + bytes([piece[at] ^ 0x10]) + piece[at + 1 :]

    def _give(self, flow: _Flow) -> bool:
        moved = False
        while flow.waiting and max(flow.waiting[0][0], self._free_at) <= time.monotonic():
            due, piece = flow.waiting.popleft()
            if not piece:
                with contextlib.suppress(OSError):
                    flow.target.shutdown(socket.SHUT_WR)
                continue
            if self._vanishes(flow):
                flow.held -= len(piece)
                continue
            try:
                sent = flow.target.send(piece)
            except BlockingIOError:
                sent = 0
            self.relayed += sent
            if self.bytes_per_s:
                self._free_at = time.monotonic() + sent / self.bytes_per_s
            flow.held -= sent
            moved = moved or sent > 0
            if sent < len(piece):
                flow.waiting.appendleft((due, piece[sent:]))
                break
        return moved

    def _drop(self, broken: _Flow) -> None:
        ends = {broken.source, broken.target}
        for end in ends:
            _reset(end)
        self._flows = [flow for flow in self._flows if flow.source not in ends]


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()
