"""What is read of a process, and which of several it is told of."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.oracle.gauges import Gauges, look


def test_a_process_shows_its_memory_its_descriptors_and_its_threads() -> None:
    before = look(os.getpid())
    assert before is not None
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    handles = os.pipe()
    held = bytearray(os.urandom(1)) * (64 << 20)
    after = look(os.getpid())
    go_on.set()
    thread.join()
    for handle in handles:
        os.close(handle)
    assert after is not None
    assert after[0] - before[0] > len(held) // 2
    assert (after[1] - before[1], after[2] - before[2]) == (2, 1)


def test_of_a_process_that_ended_nothing_is_known() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    # Ended, and not yet asked how.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert look(process.pid) is None
    process.wait()
    assert look(process.pid) is None


@pytest.mark.slow
def test_a_new_process_begins_a_new_life_and_the_longest_is_told(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    now: list[int | None] = [os.getpid()]
    try:
        with Gauges({"dev0": lambda: now[0], "dev1": lambda: None}, tmp_path / "record") as gauges:
            gauges.rest("dev0", 5, 0)
            gauges.rest("dev0", 6, 0)
            now[0] = other.pid
            gauges.rest("dev0", 7, 0)
            now[0] = None
            gauges.rest("dev0", 8, 0)
            gauges.rest("dev1", 8, 0)
    finally:
        other.kill()
        other.wait()
    assert {key: [one.tasks for one in life.rests] for key, life in gauges.lives.items()} == {
        ("dev0", os.getpid()): [5, 6],
        ("dev0", other.pid): [7],
    }
    (longest,) = gauges.longest()
    assert longest.pid == os.getpid()
    assert longest.peaks["memory"] >= longest.rests[0].memory
    assert len((tmp_path / "record").read_text().splitlines()) >= 4


def test_threads_of_the_pool_are_not_counted(tmp_path: Path) -> None:
    with Gauges({"dev0": os.getpid}, tmp_path / "record") as gauges:
        gauges.rest("dev0", 5, 0)
        gauges.rest("dev0", 5, 1)
    (life,) = gauges.longest()
    assert [one.threads for one in life.rests] == [life.rests[0].threads, life.rests[0].threads - 1]
