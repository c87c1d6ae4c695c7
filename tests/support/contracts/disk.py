"""What every `Disk` must do. Inherit `DiskContract` and give it a fixture `world`."""

import random
from contextlib import closing
from typing import ClassVar, Protocol

import blake3
import pytest

from p2psync.core.entry import SINGLE_CHUNK_MAX, Chunk, Fingerprint, Kind, Manifest
from p2psync.core.ids import Digest
from p2psync.core.manifest import chunk_sizes, content_id_of_manifest
from p2psync.core.relpath import RelPath
from p2psync.ports import (
    Action,
    Disk,
    FileChangedError,
    Outcome,
    Place,
    RootUnavailableError,
    Step,
    Whole,
)
from tests.support.steps import (
    DIRECTORY,
    OLD_MTIME_NS,
    TOMBSTONE,
    apply,
    file,
    link,
    metadata,
    move,
    place,
    rel,
    seen,
    stage,
    step,
    walked,
)

Node = bytes | str | None
"""Bytes of a file, target of a symlink, None for a directory."""

BIG = 2 * SINGLE_CHUNK_MAX + 12_345


class World(Protocol):
    """A folder with its disk, and its user who works on it behind the disk's back."""

    disk: Disk

    def write(self, path: str, data: bytes) -> None:
        """Save a file, as an editor does that rewrites it in place."""

    def link(self, path: str, target: str) -> None: ...
    def make_directory(self, path: str) -> None: ...
    def remove(self, path: str) -> None:
        """A file, a symlink, or a directory with all it holds."""

    def rename(self, old: str, new: str) -> None: ...
    def make_executable(self, path: str) -> None: ...
    def tree(self) -> dict[str, Node]:
        """All that people see."""

    def trash(self) -> list[bytes]:
        """Contents of the files in the trash."""

    def lose_root(self) -> None:
        """The folder's directory is not there any more."""


def bytes_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def manifest(*pieces: bytes) -> Manifest:
    """Of a file that is cut so."""
    return tuple(Chunk(Digest(blake3.blake3(piece).digest()), len(piece)) for piece in pieces)


class DiskContract:
    can_move: ClassVar = True
    """Otherwise the file system has no rename that replaces nothing."""

    # --- walking ---------------------------------------------------------------------------

    def test_a_walk_finds_everything_new_in_path_order(self, world: World) -> None:
        world.make_directory("a")
        world.write("a/one", b"1")
        world.link("a/to", "one")
        world.write("b", b"22")

        walk = walked(world.disk, {})

        assert [item.path for item in walk.changed] == ["a", "a/one", "a/to", "b"]
        assert [item.fingerprint.kind for item in walk.changed] == [
            Kind.DIRECTORY,
            Kind.FILE,
            Kind.SYMLINK,
            Kind.FILE,
        ]
        assert walk.changed[2].target == b"one"
        assert walk.changed[3].fingerprint.size == 2
        assert (walk.missing, walk.problems) == ([], [])

    def test_a_walk_of_what_is_known_finds_nothing(self, world: World) -> None:
        world.make_directory("a")
        world.write("a/one", b"1")
        world.link("to", "one")
        known = settled(world.disk)

        assert walked(world.disk, known) == ([], [], [])

    def test_a_directory_is_unchanged_when_its_children_change(self, world: World) -> None:
        world.make_directory("a")
        world.write("a/one", b"1")
        known = settled(world.disk)
        world.write("a/two", b"2")
        world.remove("a/one")

        walk = walked(world.disk, known)

        assert [item.path for item in walk.changed] == ["a/two"]
        assert walk.missing == ["a/one"]

    def test_a_racy_fingerprint_is_looked_at_again(self, world: World) -> None:
        world.write("one", b"1")
        known = {path: mark._replace(racy=True) for path, mark in settled(world.disk).items()}

        assert [item.path for item in walked(world.disk, known).changed] == ["one"]

    def test_changes_of_content_kind_and_exec_bit_are_found(self, world: World) -> None:
        for name in ("content", "kind", "exec", "same"):
            world.write(name, b"before")
        known = settled(world.disk)
        world.write("content", b"and after")
        world.remove("kind")
        world.link("kind", "before")
        world.make_executable("exec")

        assert [item.path for item in walked(world.disk, known).changed] == [
            "content",
            "exec",
            "kind",
        ]

    def test_a_vanished_directory_is_missing_with_all_below(self, world: World) -> None:
        world.make_directory("a")
        world.make_directory("a/b")
        world.write("a/b/c", b"1")
        known = settled(world.disk)
        world.remove("a")

        assert walked(world.disk, known).missing == ["a", "a/b", "a/b/c"]

    def test_a_walk_under_a_directory_sees_only_that(self, world: World) -> None:
        world.make_directory("a")
        world.write("a/one", b"1")
        world.write("b", b"2")

        assert [item.path for item in walked(world.disk, {}, rel("a")).changed] == ["a", "a/one"]
        assert [item.path for item in walked(world.disk, {}, rel("b")).changed] == ["b"]

    def test_a_walk_under_what_is_gone_finds_all_of_it_missing(self, world: World) -> None:
        world.make_directory("a")
        world.write("a/one", b"1")
        known = settled(world.disk)
        world.remove("a")

        assert walked(world.disk, known, rel("a")).missing == ["a", "a/one"]

    def test_what_was_made_and_recorded_since_its_directory_was_listed_is_told_as_missing(
        self, world: World
    ) -> None:
        for name in ("a", "c"):
            world.write(name, b"1")
        known = sorted(settled(world.disk).items())

        with closing(world.disk.walk()) as walking:
            assert walking.go_on(known[:1], last=False) == ([], [], [])
            world.write("b", b"1")
            rest = sorted(settled(world.disk).items())[1:]
            assert walking.go_on(rest, last=True) == ([], ["b"], [])

    def test_what_vanished_since_it_was_listed_is_left_to_the_next_walk_with_all_below(
        self, world: World
    ) -> None:
        world.write("a", b"1")
        world.make_directory("d")
        world.write("d/one", b"1")
        world.write("e", b"1")
        known = sorted(settled(world.disk).items())

        with closing(world.disk.walk()) as walking:
            walking.go_on(known[:1], last=False)
            world.remove("d")
            world.remove("e")
            assert walking.go_on(known[1:], last=True) == ([], [], [])
        assert walked(world.disk, dict(known)).missing == ["d", "d/one", "e"]

    def test_a_directory_that_is_being_walked_is_gone_through_to_its_end_wherever_it_moves(
        self, world: World
    ) -> None:
        world.make_directory("d")
        for name in ("d/one", "d/three", "d/two"):
            world.write(name, b"1")
        known = sorted(settled(world.disk).items())

        with closing(world.disk.walk()) as walking:
            walking.go_on(known[:2], last=False)
            world.rename("d", "moved")
            world.make_directory("d")
            world.write("moved/two", b"an edit")
            walk = walking.go_on(known[2:], last=True)
        assert [item.path for item in walk.changed] == ["d/two"]
        assert (walk.missing, walk.problems) == ([], [])

    def test_a_directory_that_took_the_place_of_one_that_was_seen_is_left_to_the_next_walk(
        self, world: World
    ) -> None:
        world.make_directory("d")
        world.write("d/one", b"1")
        known = sorted(settled(world.disk).items())

        with closing(world.disk.walk()) as walking:
            walking.go_on(known[:1], last=False)
            world.rename("d", "moved")
            world.make_directory("d")
            world.write("d/two", b"2")
            assert walking.go_on(known[1:], last=True) == ([], [], [])

    def test_looking_tells_what_is_there_and_what_is_not(self, world: World) -> None:
        world.write("file", b"123")
        world.link("to", "file")

        found = world.disk.look([rel("file"), rel("to"), rel("none"), rel("to/x"), rel("file/x")])

        one, two = found[rel("file")], found[rel("to")]
        assert one is not None and one.fingerprint[:2] == (Kind.FILE, 3)
        assert two is not None and two.target == b"file"
        assert found[rel("none")] is found[rel("to/x")] is found[rel("file/x")] is None

    # --- reading ---------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, SINGLE_CHUNK_MAX])
    def test_a_small_file_is_named_by_the_digest_of_its_bytes(
        self, world: World, size: int
    ) -> None:
        data = bytes_of(1, size)
        world.write("file", data)

        hashed = world.disk.hash_file(rel("file"))

        assert hashed.content == blake3.blake3(data).digest()
        assert hashed.manifest is None
        assert hashed.fingerprint[:6] == (seen(world.disk, "file") or ())[:6]

    def test_a_larger_file_is_named_by_its_manifest(self, world: World) -> None:
        data = bytes_of(2, BIG)
        world.write("file", data)

        hashed = world.disk.hash_file(rel("file"))

        assert hashed.manifest is not None and len(hashed.manifest) >= 2
        assert hashed.content == content_id_of_manifest(hashed.manifest)
        at = 0
        for digest, size in hashed.manifest:
            assert blake3.blake3(data[at : at + size]).digest() == digest
            at += size
        assert at == BIG

    @pytest.mark.parametrize("name", ["none", "directory", "to", "file/x"])
    def test_what_is_no_file_is_neither_hashed_nor_read(self, world: World, name: str) -> None:
        world.write("file", b"1")
        world.make_directory("directory")
        world.link("to", "file")

        with pytest.raises(FileChangedError):
            world.disk.hash_file(rel(name))
        with pytest.raises(FileChangedError):
            world.disk.read(Place(rel(name), 0, 1))

    def test_a_place_is_read_exactly_or_not_at_all(self, world: World) -> None:
        world.write("file", b"0123456789")

        assert world.disk.read(Place(rel("file"), 3, 4)) == b"3456"
        with pytest.raises(FileChangedError):
            world.disk.read(Place(rel("file"), 3, 8))

    # --- staging ---------------------------------------------------------------------------

    def test_staged_pieces_are_not_seen_and_make_up_the_file(self, world: World) -> None:
        data = bytes_of(3, BIG)
        sent = file(data)
        world.disk.prepare("c-1", manifest(data))
        world.disk.stage_pieces("c-1", [(100, data[100:])])
        world.disk.stage_pieces("c-1", [(0, data[:100])])

        assert world.tree() == {}
        assert walked(world.disk, {}) == ([], [], [])
        assert world.disk.staged_names() == ["c-1"]

        made = step(world.disk, "file", file(b""), name="s-2")._replace(
            entry=sent.entry, staged="c-1"
        )
        assert world.disk.commit([made])[0].outcome is Outcome.DONE
        assert world.tree() == {"file": data}
        assert world.disk.staged_names() == ["s-2"]

    def test_chunks_are_known_by_their_bytes(self, world: World) -> None:
        data = bytes_of(4, 300)
        chunks = manifest(data[:100], data[100:200], data[200:])
        assert world.disk.prepare("c-1", chunks) == [False] * 3
        world.disk.stage_pieces("c-1", [(0, data[:100]), (100, b"x" * 100)])
        assert world.disk.prepare("c-1", chunks) == [True, False, False]
        world.disk.stage_pieces("c-1", [(100, data[100:])])
        assert world.disk.prepare("c-1", chunks) == [True] * 3

    def test_a_staging_file_of_another_size_begins_anew(self, world: World) -> None:
        stage(world.disk, "c-1", b"abcde")
        world.disk.prepare("c-1", manifest(b"xyz"))
        world.disk.stage_pieces("c-1", [(0, b"xy")])
        assert world.disk.prepare("c-1", manifest(b"xy", b"\0")) == [True, True]
        assert world.disk.prepare("c-1", manifest(b"xy", b"zz")) == [False, False]

    def test_zeros_need_not_be_staged(self, world: World) -> None:
        zeros = bytes(chunk_sizes(BIG).maximum)
        assert world.disk.prepare("c-1", manifest(zeros, b"x", zeros, b"\0")) == [
            True,
            False,
            True,
            True,
        ]

    def test_local_chunks_are_copied_into_staging_if_they_are_right(self, world: World) -> None:
        world.write("file", b"0123456789")
        chunks = manifest(b"ab", b"234", b"56", b"8", b"90")
        assert world.disk.prepare("c-1", chunks) == [False] * 5

        assert world.disk.stage_copy("c-1", 2, chunks[1:3], Place(rel("file"), 2, 5)) == [True] * 2
        assert world.disk.stage_copy("c-1", 7, chunks[3:], Place(rel("file"), 8, 3)) == [
            True,
            False,
        ]
        assert world.disk.stage_copy("c-1", 0, chunks[:1], Place(rel("none"), 0, 2)) == [False]
        assert world.disk.stage_copy("c-1", 0, chunks[:1], Place(rel("file"), 0, 2)) == [False]

        assert world.disk.prepare("c-1", chunks) == [False, True, True, True, False]
        whole = manifest(b"\0\0" + b"234568" + b"\0\0")
        assert world.disk.prepare("c-1", whole) == [True], "what was not right was written"

    def test_a_staging_file_that_has_gone_is_not_made_anew_without_what_was_in_it(
        self, world: World
    ) -> None:
        world.write("file", b"0123")
        chunks = manifest(b"01", b"23")
        world.disk.prepare("c-1", chunks)
        world.disk.stage_pieces("c-1", [(0, b"01")])
        world.disk.unstage(["c-1"])
        with pytest.raises(FileNotFoundError):
            world.disk.stage_pieces("c-1", [(2, b"23")])
        with pytest.raises(FileNotFoundError):
            world.disk.stage_copy("c-1", 2, chunks[1:], Place(rel("file"), 2, 2))
        assert world.disk.staged_names() == []

    def test_staging_files_can_be_dropped(self, world: World) -> None:
        stage(world.disk, "s-1", b"1")
        stage(world.disk, "s-2", b"")
        world.disk.unstage(["s-1", "s-3"])
        assert world.disk.staged_names() == ["s-2"]

    def test_whole_files_are_staged_and_placed_with_their_metadata(self, world: World) -> None:
        sent = [file(bytes(size), executable=size % 2 == 0) for size in range(8)]
        steps = [
            Step(Action.PLACE, rel(f"file{number}"), each.entry, None, f"s-{number}")
            for number, each in enumerate(sent)
        ]
        world.disk.stage_whole(
            [
                Whole(one.staged, each.data, each.entry)
                for one, each in zip(steps, sent, strict=True)
            ]
        )
        assert world.tree() == {}

        marks = [result.fingerprint for result in world.disk.commit(steps)]

        assert world.tree() == {f"file{size}": bytes(size) for size in range(8)}
        assert [mark and (mark.size, mark.mtime_ns, mark.executable) for mark in marks] == [
            (size, OLD_MTIME_NS, size % 2 == 0) for size in range(8)
        ]
        assert world.disk.staged_names() == []

    def test_many_files_can_be_read_at_once(self, world: World) -> None:
        for name in ("one", "two"):
            world.write(name, name.encode())
        with world.disk.at_once():
            assert world.disk.read(Place(rel("one"), 0, 3)) == b"one"
            assert world.disk.hash_file(rel("two")).content == blake3.blake3(b"two").digest()
            with pytest.raises(FileChangedError):
                world.disk.read(Place(rel("none"), 0, 1))
        world.lose_root()
        with pytest.raises(RootUnavailableError), world.disk.at_once():
            pass

    # --- committing ------------------------------------------------------------------------

    @pytest.mark.parametrize("data", [b"", b"hello"])
    def test_a_new_file_appears_with_its_metadata(self, world: World, data: bytes) -> None:
        mark = place(world.disk, "file", file(data, executable=True))

        assert world.tree() == {"file": data}
        assert mark[:3] == (Kind.FILE, len(data), OLD_MTIME_NS)
        assert mark.executable and not mark.racy
        assert walked(world.disk, {rel("file"): mark}) == ([], [], [])
        assert world.disk.staged_names() == []

    def test_a_new_link_and_a_new_directory_appear(self, world: World) -> None:
        known = {rel("to"): place(world.disk, "to", link("no/where"))}
        known[rel("a")] = place(world.disk, "a", DIRECTORY)

        assert world.tree() == {"to": "no/where", "a": None}
        assert walked(world.disk, known) == ([], [], [])

    def test_steps_build_on_those_before(self, world: World) -> None:
        steps = [
            step(world.disk, "a", DIRECTORY),
            step(world.disk, "a/b", DIRECTORY),
            step(world.disk, "a/b/file", file(b"1")),
        ]
        results = world.disk.commit(steps)
        assert [result.outcome for result in results] == [Outcome.DONE] * 3
        assert [result.step for result in results] == steps
        assert world.tree() == {"a": None, "a/b": None, "a/b/file": b"1"}

    @pytest.mark.parametrize("new", [file(b"new"), link("new")])
    @pytest.mark.parametrize("old", [file(b"old"), link("old")])
    def test_what_is_expected_is_replaced(self, world: World, old, new) -> None:
        place(world.disk, "it", old)
        mark = place(world.disk, "it", new)

        assert world.tree() == {"it": b"new" if new.data else "new"}
        assert walked(world.disk, {rel("it"): mark}) == ([], [], [])
        if old.data:
            assert world.trash() == [b"old"]

    def test_an_empty_directory_is_replaced_by_a_file(self, world: World) -> None:
        world.make_directory("it")
        place(world.disk, "it", file(b"new"))
        assert world.tree() == {"it": b"new"}

    def test_a_directory_with_children_is_not_replaced(self, world: World) -> None:
        world.make_directory("it")
        world.write("it/child", b"1")
        assert apply(world.disk, "it", file(b"new")).outcome is Outcome.NOT_EMPTY
        assert apply(world.disk, "it", TOMBSTONE).outcome is Outcome.NOT_EMPTY
        assert world.tree() == {"it": None, "it/child": b"1"}

    def test_a_file_gives_way_to_a_directory(self, world: World) -> None:
        place(world.disk, "it", file(b"old"))
        place(world.disk, "it", DIRECTORY)
        assert world.tree() == {"it": None}
        assert world.trash() == [b"old"]

    def test_a_file_moves_with_its_metadata_and_nothing_goes_to_the_trash(
        self, world: World
    ) -> None:
        old = place(world.disk, "it", file(b"1"))
        known = {rel("b"): place(world.disk, "b", DIRECTORY)}

        (result,) = world.disk.commit([move("it", "b/new", old)])

        if not self.can_move:
            assert result.outcome is Outcome.FAILED
            assert world.tree() == {"b": None, "it": b"1"}
            return
        assert result.outcome is Outcome.DONE
        mark = result.fingerprint
        assert mark is not None and not mark.racy
        assert (mark.inode, mark.size, mark.mtime_ns) == (old.inode, old.size, old.mtime_ns)
        assert world.tree() == {"b": None, "b/new": b"1"}
        assert walked(world.disk, {**known, rel("b/new"): mark}) == ([], [], [])
        assert world.trash() == []

    def test_a_move_wants_its_file_as_expected_and_nothing_where_it_goes(
        self, world: World
    ) -> None:
        mark = place(world.disk, "it", file(b"1"))
        place(world.disk, "taken", file(b"2"))
        before = world.tree()
        for refused in (
            move("it", "taken", mark),
            move("taken", "new", mark),
            move("none", "new", mark),
            move("none/it", "new", mark),
        ):
            outcome = world.disk.commit([refused])[0].outcome
            assert outcome is Outcome.CHANGED or not self.can_move
        assert world.disk.commit([move("it", "no/new", mark)])[0].outcome is Outcome.NO_PARENT
        assert world.tree() == before

    @pytest.mark.parametrize("old", [file(b"old"), link("old"), DIRECTORY])
    def test_what_is_expected_is_removed(self, world: World, old) -> None:
        place(world.disk, "it", old)
        assert apply(world.disk, "it", TOMBSTONE).outcome is Outcome.DONE
        assert world.tree() == {}
        assert world.trash() == ([b"old"] if old.data else [])

    def test_removing_what_is_gone_already_is_done(self, world: World) -> None:
        mark = place(world.disk, "it", file(b"old"))
        world.remove("it")
        (result,) = world.disk.commit([step(world.disk, "it", TOMBSTONE, expected=mark)])
        assert result.outcome is Outcome.DONE
        deeper = step(world.disk, "no/it", TOMBSTONE, expected=mark)
        assert world.disk.commit([deeper])[0].outcome is Outcome.DONE

    def test_making_a_directory_that_is_there_is_done(self, world: World) -> None:
        world.make_directory("a")
        (result,) = world.disk.commit([step(world.disk, "a", DIRECTORY)])
        assert result.outcome is Outcome.DONE

    @pytest.mark.parametrize("new", [file(b"new"), link("new"), DIRECTORY, TOMBSTONE])
    def test_a_file_edited_meanwhile_is_left_alone(self, world: World, new) -> None:
        mark = place(world.disk, "it", file(b"old"))
        world.write("it", b"edited")

        (result,) = world.disk.commit([step(world.disk, "it", new, expected=mark)])

        assert result.outcome is Outcome.CHANGED
        assert world.tree() == {"it": b"edited"}
        assert world.trash() == []
        assert world.disk.staged_names() == (["s-1"] if new.data else [])

    @pytest.mark.parametrize("new", [file(b"new"), link("new"), DIRECTORY])
    def test_a_file_nobody_knew_of_is_left_alone(self, world: World, new) -> None:
        world.write("it", b"mine")
        (result,) = world.disk.commit([step(world.disk, "it", new)])
        assert result.outcome is Outcome.CHANGED
        assert world.tree() == {"it": b"mine"}

    @pytest.mark.parametrize("new", [file(b"new"), link("new"), DIRECTORY])
    def test_what_was_deleted_meanwhile_stays_deleted(self, world: World, new) -> None:
        mark = place(world.disk, "it", file(b"old"))
        world.remove("it")
        (result,) = world.disk.commit([step(world.disk, "it", new, expected=mark)])
        assert result.outcome is Outcome.CHANGED
        assert world.tree() == {}

    @pytest.mark.parametrize("new", [file(b"new"), link("new"), DIRECTORY])
    def test_nothing_is_placed_where_no_directory_is(self, world: World, new) -> None:
        world.write("file", b"1")
        world.make_directory("elsewhere")
        world.link("to", "elsewhere")
        for path in ("none/it", "file/it", "to/it"):
            (result,) = world.disk.commit([step(world.disk, path, new)])
            assert result.outcome is Outcome.NO_PARENT
        assert world.tree() == {"file": b"1", "elsewhere": None, "to": "elsewhere"}

    def test_metadata_changes_without_content(self, world: World) -> None:
        world.write("file", b"1")
        change = metadata("file", seen(world.disk, "file"), executable=True)

        (result,) = world.disk.commit([change])

        assert result.outcome is Outcome.DONE
        found = seen(world.disk, "file")
        assert found is not None and result.fingerprint is not None
        assert found[:6] == result.fingerprint[:6]
        assert found.mtime_ns == OLD_MTIME_NS and found.executable
        assert world.tree() == {"file": b"1"}

    def test_metadata_of_an_edited_file_is_left_alone(self, world: World) -> None:
        mark = place(world.disk, "file", file(b"old"))
        world.write("file", b"edited")
        (result,) = world.disk.commit([metadata("file", mark, executable=True)])
        assert result.outcome is Outcome.CHANGED
        found = seen(world.disk, "file")
        assert found is not None and not found.executable

    def test_a_step_without_its_data_fails_alone(self, world: World) -> None:
        good = step(world.disk, "good", file(b"1"))
        bad: Step = good._replace(path=rel("bad"), staged="s-2")
        results = world.disk.commit([bad, good])
        assert [result.outcome for result in results] == [Outcome.FAILED, Outcome.DONE]
        assert results[0].problem is not None and results[0].problem.path == "bad"
        assert world.tree() == {"good": b"1"}

    # --- the root --------------------------------------------------------------------------

    def test_without_the_root_nothing_is_told_or_done(self, world: World) -> None:
        known = {rel("file"): place(world.disk, "file", file(b"1"))}
        steps = [step(world.disk, "new", file(b"2"))]
        world.lose_root()

        for use in (
            world.disk.check_root,
            lambda: walked(world.disk, known),
            lambda: world.disk.look([rel("file")]),
            lambda: world.disk.hash_file(rel("file")),
            lambda: world.disk.read(Place(rel("file"), 0, 1)),
            lambda: stage(world.disk, "s-9", b""),
            lambda: world.disk.commit(steps),
        ):
            with pytest.raises(RootUnavailableError):
                use()


def settled(disk: Disk) -> dict[RelPath, Fingerprint]:
    """The tree as an index knows it once the clock has moved on."""
    return {item.path: item.fingerprint._replace(racy=False) for item in walked(disk, {}).changed}
