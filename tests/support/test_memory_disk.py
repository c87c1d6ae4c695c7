"""The disk that other tests build on keeps the contract of every disk."""

import pytest

from p2psync.ports import Disk
from tests.support.contracts.disk import DiskContract
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import MemoryDisk


class World(MemoryDisk):
    """A disk that is its own user, whose time goes on by itself."""

    def __init__(self) -> None:
        self._clock = ManualClock()
        super().__init__(self._tick)

    def _tick(self) -> int:
        self._clock.advance(0.001)
        return self._clock.now_ns()

    @property
    def disk(self) -> Disk:
        return self


class TestMemoryDisk(DiskContract):
    @pytest.fixture
    def world(self) -> World:
        return World()
