"""Strangers: a thousand connections at once, and what was said before said again."""

import contextlib
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest

from p2psync.net.link import LinkRefusedError
from p2psync.protocol.messages import Roster
from tests.e2e.harness import Lab, everywhere
from tests.e2e.hostile import Mallory
from tests.e2e.processes import eventually
from tests.e2e.site import descriptors, peak_mib

CONNECTIONS = 1000
ROUNDS = 10
SAID = (b"", b"\0", b"\0\0\0\x40half", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01" + b"x" * 600)
"""Nothing, and the beginnings of a pairing, of a handshake, and of what is neither."""


@pytest.fixture
def descriptors_to_spare() -> Iterator[None]:
    """Enough of them for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _all_at_once(address: str, held: contextlib.ExitStack) -> list[socket.socket]:
    """Connections under way from a hundred addresses, none waited for."""
    host, _, port = address.rpartition(":")
    opened = []
    for number in range(CONNECTIONS):
        sock = held.enter_context(socket.socket())
        sock.setblocking(False)
        sock.bind((f"127.0.2.{1 + number % 100}", 0))
        sock.connect_ex((host, int(port)))
        opened.append(sock)
    return opened


def _say(sock: socket.socket, data: bytes) -> bool:
    """Whether it could be said; who was turned away at the door says nothing any more."""
    try:
        return sock.send(data) == len(data)
    except OSError:
        return False


def test_a_thousand_connections_of_strangers_hold_up_nobody(
    lab: Lab, descriptors_to_spare: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ada, bob = lab.group("ada", "bob")
    before = (descriptors(ada), peak_mib(ada))
    most = 0
    with contextlib.ExitStack() as held:
        opened = _all_at_once(ada.address(), held)
        silent = dict(enumerate(opened))
        turn = 0
        # Not all find room in the listener's queue at first, and those knock again.
        while turn < ROUNDS or len(silent) > CONNECTIONS / 10:
            turn += 1
            # Who is connected by now begins, and goes on byte by byte.
            begun = [number for number, sock in silent.items() if _say(sock, SAID[number % 5])]
            for number in begun:
                del silent[number]
            for sock in opened:
                _say(sock, b"\0")
            most = max(most, descriptors(ada))
            one, other = (ada, bob) if turn % 2 else (bob, ada)
            one.write(f"file {turn}", f"{turn}")
            everywhere([other], f"file {turn}", f"{turn}".encode())
            most = max(most, descriptors(ada))
        bob.restart()
        eventually(lambda: bob.is_connected_to(ada), within=20, what="bob is connected again")
        most = max(most, descriptors(ada))
    after = peak_mib(ada)
    with capsys.disabled():
        print(
            f"\n{CONNECTIONS} connections of strangers: descriptors {before[0]}, at most {most}; "
            f"memory {before[1]} MiB, at most {after} MiB"
        )
    assert most < before[0] + 100
    assert after < before[1] + 40
    eventually(lambda: descriptors(ada) <= before[0] + 5, within=20, what="all are closed")


# --- what was said before -------------------------------------------------------------------------


class _Recorder:
    """Passes one connection on, and keeps what was said in it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.said = bytearray()
        """By the side that called."""
        self._thread = threading.Thread(target=self._pass_on)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _pass_on(self) -> None:
        self._listener.settimeout(20)
        one = self._listener.accept()[0]
        with one, socket.create_connection(self._target) as other:
            ends = {one: other, other: one}
            while True:
                for sock in select.select(list(ends), [], [], 20)[0] or [one]:
                    data = sock.recv(65536)
                    if not data:
                        return
                    if sock is one:
                        self.said += data
                    ends[sock].sendall(data)


def _replay(address: str, said: bytes) -> bytes:
    """What comes back when it is said again, to the end."""
    host, _, port = address.rpartition(":")
    heard = b""
    with socket.create_connection((host, int(port)), 20) as sock:
        sock.sendall(said)
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                heard += data
    return heard


def test_a_pairing_and_a_roster_that_are_replayed_let_nobody_in(lab: Lab) -> None:
    ada = lab.device("ada")
    ada.write("secret", b"figures")
    ada.add_folder()
    eve, mallory = Mallory(lab.base / "eve", "eve"), Mallory(lab.base / "mallory")
    with eve, mallory, _Recorder(ada.address()) as recorder:
        eve.pair(ada, address=recorder.address)
        mallory.pair(ada)
        # A conversation of a member: what it replays is heard.
        talk = mallory.connect(ada)
        old = mallory.roster.merge(eve.roster.statements, mallory.own)
        assert eve.own.device in old.members(mallory.own.device)
        ada.ok("device", "remove", "eve")
        before = len(ada.log_text())

        talk.say(Roster(), old.encode())
        news = old.rename(mallory.own, mallory.own.device, name="news", stamp=time.time_ns())
        talk.say(Roster(), news.encode())
        eventually(lambda: ada.peer("news"), within=20, what="ada took what was new in it")
        assert ada.peer("eve") is None

        # First no window is open; then one is, with another code.
        assert b"used" in _replay(ada.address(), bytes(recorder.said))
        ada.new_code()
        for _ in range(3):
            heard = _replay(ada.address(), bytes(recorder.said))
            assert b"wrong" in heard
            assert b"shared" not in heard
        late = _replay(ada.address(), bytes(recorder.said))
        assert b"closed" in late or b"burned" in late
        with pytest.raises(LinkRefusedError):
            eve.connect(ada)
        assert [row["name"] for row in ada.status()["devices"]] == ["news"]
        assert "not paired" in ada.log_text()[before:]
