"""Strangers that hold on to a thousand connections, while two devices go on as if nothing were."""

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.device import Device
from tests.e2e.harness import Lab, everywhere
from tests.e2e.processes import eventually
from tests.e2e.site import peak_mib

CONNECTIONS = 1000
SAID = (b"", b"\0", b"\0\0\0\x40half", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01" + b"x" * 600)
"""Nothing, and the beginnings of a pairing, of a handshake, and of what is neither."""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough of them for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _descriptors(device: Device) -> int:
    assert device.process is not None
    return len(list(Path(f"/proc/{device.process.pid}/fd").iterdir()))


def test_a_thousand_connections_of_strangers_hold_up_nobody(
    lab: Lab, descriptors: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ada, bob = lab.group("ada", "bob")
    host, _, port = ada.address().rpartition(":")
    before = (_descriptors(ada), peak_mib(ada))
    most = 0
    with contextlib.ExitStack() as held:
        for number in range(CONNECTIONS):
            # Even a dialling stranger may be turned away at the door.
            with contextlib.suppress(ConnectionError, TimeoutError):
                source = (f"127.0.2.{1 + number % 100}", 0)
                sock = socket.create_connection((host, int(port)), 5, source_address=source)
                held.enter_context(sock).sendall(SAID[number % len(SAID)])
            if number % 100 == 99:
                most = max(most, _descriptors(ada))
                one, other = (ada, bob) if number % 200 == 99 else (bob, ada)
                one.write(f"file {number}", f"{number}")
                everywhere([other], f"file {number}", f"{number}".encode())
        bob.restart()
        eventually(lambda: bob.is_connected_to(ada), within=20, what="bob is connected again")
        most = max(most, _descriptors(ada))
    after = peak_mib(ada)
    with capsys.disabled():
        print(
            f"\n{CONNECTIONS} connections of strangers: descriptors {before[0]}, at most {most}; "
            f"memory {before[1]} MiB, at most {after} MiB"
        )
    assert most < before[0] + 150
    assert after < before[1] + 60
