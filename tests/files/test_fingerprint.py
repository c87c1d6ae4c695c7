import os

import pytest

from p2psync.core.entry import Kind
from p2psync.files.fingerprint import DIRECTORY, fingerprint_of

SECOND = 10**9
NOW = 1_700_000_000 * SECOND + 500_000_000


def found(mode: int, *, mtime_ns: int = 1, ctime_ns: int = 1) -> os.stat_result:
    return os.stat_result(
        (mode, 7, 1, 1, 0, 0, 5, 0, 0, 0), {"st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns}
    )


@pytest.mark.parametrize(
    ("mtime_ns", "ctime_ns", "racy"),
    [
        (1, NOW - 30_000_000, False),
        (1, NOW - 10_000_000, True),
        (NOW - 10_000_000, NOW - SECOND - 1, True),
        (NOW + 3600 * SECOND, NOW - SECOND - 1, False),
        (1, NOW + SECOND + 1, True),
        (1, NOW - NOW % SECOND - SECOND, True),
        (1, NOW - NOW % SECOND - 2 * SECOND, False),
    ],
    ids=[
        "long enough ago",
        "changed in this tick",
        "written in this tick",
        "an mtime set to the future says nothing",
        "a server's clock ahead of ours",
        "whole seconds: within two",
        "whole seconds: longer ago",
    ],
)
def test_what_may_change_without_another_stamp_is_racy(
    mtime_ns: int, ctime_ns: int, racy: bool
) -> None:
    mark = fingerprint_of(found(0o100644, mtime_ns=mtime_ns, ctime_ns=ctime_ns), now_ns=NOW)
    assert mark is not None and mark.racy is racy


def test_a_directory_is_its_kind_alone() -> None:
    assert fingerprint_of(found(0o040755, mtime_ns=NOW, ctime_ns=NOW), now_ns=NOW) == DIRECTORY


def test_only_the_owners_exec_bit_counts_and_only_of_files() -> None:
    for mode, executable in ((0o100744, True), (0o100655, False), (0o120777, False)):
        mark = fingerprint_of(found(mode), now_ns=NOW)
        assert mark is not None and mark.executable is executable


def test_pipes_sockets_and_devices_have_none() -> None:
    for mode in (0o010644, 0o140755, 0o020666, 0o060660):
        assert fingerprint_of(found(mode), now_ns=NOW) is None


def test_the_kind_is_that_of_the_object() -> None:
    kinds = {0o100644: Kind.FILE, 0o120777: Kind.SYMLINK, 0o040700: Kind.DIRECTORY}
    for mode, kind in kinds.items():
        mark = fingerprint_of(found(mode), now_ns=NOW)
        assert mark is not None and mark.kind is kind
