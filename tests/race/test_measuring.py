"""What is counted is what happened."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import end, eventually
from tests.race.measuring import Meter, bytes_on_disk, is_listening, process_tree

_BUSY = "import time; data = bytearray(60 << 20); print(flush=True)\nwhile True: pass"


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that holds 60 MiB and works without an end."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    end(process)


@pytest.mark.slow
def test_the_work_and_the_memory_of_what_runs_are_counted(busy: int) -> None:
    meter = Meter([[busy]])

    eventually(lambda: meter.cpu_s([[busy]]) > 0.05, within=20, what="its work is seen")
    meter.look([[busy]])

    assert meter.peaks_mib[0] > 60
    assert Meter([[busy]]).cpu_s([[busy]]) < 0.05


@pytest.mark.slow
def test_the_work_of_what_has_ended_is_counted() -> None:
    meter = Meter([[]])

    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)

    assert meter.cpu_s([[]]) > 0.05


def test_descendants_belong_to_a_process() -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())

        assert process_tree(shell.pid) == [shell.pid, child]

        os.kill(child, 9)
        shell.wait()
        assert process_tree(child) == [child]


def test_bytes_on_the_loopback_are_counted_with_their_headers() -> None:
    meter = Meter([[]])
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert is_listening(server.getsockname()[1])
        with socket.create_connection(server.getsockname()) as one, server.accept()[0] as other:
            sender = threading.Thread(target=one.sendall, args=(bytes(100_000),))
            sender.start()
            left = 100_000
            while left:
                left -= len(other.recv(left))
            sender.join()

    assert meter.wire > 100_000


def test_nobody_listens_at_a_port_that_was_let_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    assert not is_listening(port)


def test_what_a_directory_takes_is_in_whole_blocks(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(bytes(range(256)) * 40)

    assert bytes_on_disk(tmp_path) >= 10_240
    assert bytes_on_disk(tmp_path) % 512 == 0
    assert bytes_on_disk(tmp_path / "absent") == 0
