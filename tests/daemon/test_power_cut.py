from collections.abc import Iterator

import pytest

from p2psync import failpoints
from p2psync.daemon.power_cut import end_where_told
from p2psync.errors import ConfigError


@pytest.fixture(autouse=True)
def no_hook_stays() -> Iterator[None]:
    yield
    failpoints.install(None)


def _ends(told: str | None, *reached: str) -> list[int]:
    """After how many of `reached` the end came, each time."""
    so_far: list[str] = []
    ends: list[int] = []
    end_where_told(told, lambda: ends.append(len(so_far)))
    for name in reached:
        so_far.append(name)
        failpoints.reach(name)
    return ends


@pytest.mark.parametrize("told", [None, ""])
def test_without_the_variable_no_point_is_an_end(told: str | None) -> None:
    assert _ends(told, *failpoints.NAMES) == []


def test_the_end_comes_when_the_named_point_is_reached() -> None:
    assert _ends("commit.begun", "commit.after-swap", "commit.begun", "commit.begun") == [2]


def test_the_end_comes_at_the_time_that_is_asked_for() -> None:
    assert _ends("commit.begun:3", *["commit.begun"] * 2, "commit.after-put", "commit.begun") == [4]


@pytest.mark.parametrize("told", ["commit", "commit.begun:0", "commit.begun:x", "commit.begun:-1"])
def test_what_names_no_failpoint_keeps_the_daemon_from_starting(told: str) -> None:
    with pytest.raises(ConfigError, match="P2PSYNC_FAILPOINT"):
        end_where_told(told)
