"""When a file counts as written."""

import pytest

from p2psync.core.settle import quiet_at

MS = 1_000_000
NOW = 10_000 * MS
SMALL, LARGE = 4 * 1024 * 1024, 4 * 1024 * 1024 + 1


@pytest.mark.parametrize(
    ("size", "changed", "quiet", "why"),
    [
        (0, NOW, NOW + 40 * MS, "a small file waits a little"),
        (SMALL, NOW - 40 * MS, NOW, "and then may be read"),
        (SMALL, NOW - 41 * MS, NOW - 1 * MS, "one that was quiet long enough is not waited for"),
        (LARGE, NOW, NOW + 1000 * MS, "a large file waits longer"),
        (LARGE, NOW + 1, NOW, "a change from the future tells nothing"),
    ],
)
def test_quiet_at(size: int, changed: int, quiet: int, why: str) -> None:
    assert quiet_at(size, changed, NOW) == quiet, why


def test_a_large_file_that_nobody_writes_to_any_more_waits_less() -> None:
    assert quiet_at(LARGE, NOW, NOW, is_closed=True) == NOW + 250 * MS
    assert quiet_at(SMALL, NOW, NOW, is_closed=True) == NOW + 40 * MS
