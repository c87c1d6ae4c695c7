"""Parts that are broken on purpose where the simulation cannot show it, and the tests that notice.

`pytest -p tests.mutations.broken --broken NAME` runs tests with one of them.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import pytest

from p2psync.core import merge, observe
from p2psync.core.entry import Entry
from p2psync.core.ids import DeviceID
from p2psync.core.version import Dot, Version, content_successor
from p2psync.files import commit, staging
from p2psync.files.syncing import Unsynced
from p2psync.files.tree import Tree
from p2psync.protocol import chunks
from p2psync.storage.folder_index import SqliteFolderIndex


class Broken(NamedTuple):
    breaks: Callable[[], None]
    noticed_by: tuple[str, ...]
    """Each of these tests fails, by an assertion."""


def _put(owner: Any, attribute: str, value: object) -> None:
    setattr(owner, attribute, value)


def _elects_in_circles() -> None:
    """Where neither version has seen the other the newest file wins, whatever it was made from."""

    def newest_wins(one: Entry, other: Entry) -> bool:
        one_saw = one.version.covers(other.version.dot)
        if one_saw != other.version.covers(one.version.dot):
            return one_saw
        return (one.mtime_ns, one.version.dot) >= (other.mtime_ns, other.version.dot)

    _put(merge, "_first_wins", newest_wins)


def _removes_by_name() -> None:
    """What is named like a temporary file is one, wherever it lies."""
    unstage = staging.unstage

    def unstage_anywhere(tree: Tree, names: Iterable[str]) -> None:
        names = list(names)
        unstage(tree, names)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                tree.system.unlink(tree.directory(None), name)

    _put(staging, "unstage", unstage_anywhere)


def _remembers_removed_devices() -> None:
    """What a removed device offered goes on counting."""

    async def remember(_self: SqliteFolderIndex, _peer: DeviceID) -> None:
        pass

    _put(SqliteFolderIndex, "forget_peer", remember)


def _forgets_counters() -> None:
    """Once a device was removed, an edit leaves out the counters of others."""
    forget_peer = SqliteFolderIndex.forget_peer
    removed: set[DeviceID] = set()

    async def forget(self: SqliteFolderIndex, peer: DeviceID) -> None:
        removed.add(peer)
        await forget_peer(self, peer)

    def without_others(before: Version | None, dot: Dot, **more: Any) -> Version:
        version = content_successor(before, dot, **more)
        return msgspec.structs.replace(version, vector=(tuple(dot),)) if removed else version

    _put(SqliteFolderIndex, "forget_peer", forget)
    _put(observe, "content_successor", without_others)


def _unpacks_without_bound() -> None:
    """Packed chunks may come to any size."""
    _put(chunks, "MAX_PAYLOAD", 1 << 62)


def _renames_blindly() -> None:
    """What was just written to a file goes with its rename, and is taken for what was there."""
    _put(commit, "is_same_but_moved", lambda _found, _expected: True)


def _records_before_durable_where_moved() -> None:
    """What a user wrote a moment ago and a peer moved is recorded before it is on the disk."""
    _put(Unsynced, "file", lambda _self, _path: None)


BROKEN: dict[str, Broken] = {
    "elects-in-circles": Broken(
        _elects_in_circles,
        ("tests/core/test_merge.py::test_an_edit_with_an_earlier_time_closes_no_circle",),
    ),
    "removes-by-name": Broken(
        _removes_by_name,
        (
            "tests/files/test_staging.py"
            "::test_a_users_file_is_never_taken_for_one_of_ours_by_its_name",
        ),
    ),
    "remembers-removed-devices": Broken(
        _remembers_removed_devices,
        (
            "tests/engine/test_pull.py::test_a_problem_goes_when_nothing_is_wanted_there_any_more",
            "tests/storage/test_offers.py::test_a_forgotten_peer_leaves_nothing",
        ),
    ),
    "forgets-counters": Broken(
        _forgets_counters,
        (
            "tests/engine/test_edge_cases.py"
            "::test_counters_of_a_removed_device_make_no_conflict_and_nothing_pending",
        ),
    ),
    "renames-blindly": Broken(
        _renames_blindly,
        (
            "tests/files/test_commit.py"
            "::test_an_edit_just_before_a_file_moves_stays_where_people_see_it[False]",
        ),
    ),
    "records-before-durable-where-moved": Broken(
        _records_before_durable_where_moved,
        (
            "tests/files/test_commit.py"
            "::test_what_was_moved_is_made_durable_with_its_new_name_first[True]",
        ),
    ),
    "unpacks-without-bound": Broken(
        _unpacks_without_bound,
        (
            "tests/protocol/test_chunks.py"
            "::test_many_frames_together_take_no_more_memory_than_a_payload",
        ),
    ),
}


# --- the plugin ----------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--broken", choices=sorted(BROKEN))


def pytest_configure(config: pytest.Config) -> None:
    if (name := config.getoption("--broken")) is not None:
        BROKEN[name].breaks()


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any], report: Any
) -> None:
    error = call.excinfo.value if call.excinfo is not None else None
    word = "noticed by" if isinstance(error, AssertionError) else "broke"
    print(f"\n{word} {node.nodeid}")
