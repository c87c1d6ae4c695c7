"""What a commit does when someone interferes, and when the file system lacks or fails something."""

import errno
import os
import re
from collections.abc import Callable
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from p2psync.files.modes import umask
from p2psync.files.moves import Mover
from p2psync.ports import Outcome, Step
from tests.files.folder import Folder, make_folder
from tests.files.interposed import InterposedSystem, fails, lacks, once
from tests.support.contracts.disk import DiskContract
from tests.support.steps import (
    DIRECTORY,
    TOMBSTONE,
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


@pytest.fixture
def system() -> InterposedSystem:
    return InterposedSystem()


@pytest.fixture
def folder(tmp_path: Path, system: InterposedSystem) -> Folder:
    return make_folder(tmp_path / "folder", system)


def commit_one(folder: Folder, step: Step) -> Outcome:
    (result,) = folder.disk.commit([step])
    return result.outcome


# --- edits between our looking and our changing -----------------------------------------------


@pytest.mark.parametrize("new", [file(b"new"), link("new"), DIRECTORY, TOMBSTONE])
def test_an_edit_between_the_check_and_the_rename_goes_back_to_its_place(
    folder: Folder, system: InterposedSystem, new
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", new, expected=mark)
    replaces = new not in (DIRECTORY, TOMBSTONE)
    # The first rename of a file to be placed only moves it out of staging.
    skip = 1 if new.data else 0
    rename = "rename_flagged" if replaces else "rename"
    system.before = once(rename, lambda: folder.write("it", b"edit"), skip=skip)

    assert commit_one(folder, change) is Outcome.CHANGED

    assert folder.tree() == {"it": b"edit"}
    assert folder.trash() == []
    assert folder.disk.staged_names() == (["s-1"] if new.data else [])
    assert folder.left_in_staging() == folder.disk.staged_names()


def test_a_file_replaced_by_another_between_check_and_rename_goes_back(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", file(b"new"), expected=mark)

    def save() -> None:
        folder.write("new-it", b"atomic save")
        os.rename(folder.root / "new-it", folder.root / "it")

    system.before = once("rename_flagged", save, skip=1)

    assert commit_one(folder, change) is Outcome.CHANGED
    assert folder.tree() == {"it": b"atomic save"}


def test_of_two_edits_in_a_row_both_stay_visible(folder: Folder, system: InterposedSystem) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", file(b"new"), expected=mark)
    edits = iter([b"one", b"two"])

    def save() -> None:
        folder.write("temp", next(edits))
        os.rename(folder.root / "temp", folder.root / "it")

    def hook(name: str, args: tuple[object, ...]) -> None:
        if name == "rename_flagged" and args[-1] == 2:
            save()

    system.before = hook

    assert commit_one(folder, change) is Outcome.CHANGED

    assert folder.tree()["it"] == b"one"
    (other,) = set(folder.tree()) - {"it"}
    assert re.fullmatch(r"it \(recovered 2030-03-17 [0-9a-f]{6}\)", other)
    assert folder.tree()[other] == b"two"


def test_an_edit_of_what_was_just_placed_is_not_lost_when_it_is_taken_back(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", file(b"new"), expected=mark)
    edits = iter([b"edit of old", b"edit of new"])

    def hook(name: str, args: tuple[object, ...]) -> None:
        if name == "rename_flagged" and args[-1] == 2:
            folder.write("it", next(edits))

    system.before = hook

    assert commit_one(folder, change) is Outcome.CHANGED
    assert set(folder.tree().values()) == {b"edit of new", b"edit of old"}


def test_a_path_deleted_while_something_goes_back_to_it_gets_it_all_the_same(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", file(b"new"), expected=mark)
    acts = iter([lambda: folder.write("it", b"edit"), lambda: folder.remove("it")])

    def hook(name: str, args: tuple[object, ...]) -> None:
        if name == "rename_flagged" and args[-1] == 2:
            next(acts)()

    system.before = hook

    assert commit_one(folder, change) is Outcome.CHANGED
    assert folder.tree() == {"it": b"edit"}


@pytest.mark.parametrize("new", [file(b"new"), link("new")])
def test_a_file_that_appears_at_the_last_moment_is_not_overwritten(
    folder: Folder, system: InterposedSystem, new
) -> None:
    change = step(folder.disk, "it", new)
    system.before = once("rename_flagged", lambda: folder.write("it", b"mine"))

    assert commit_one(folder, change) is Outcome.CHANGED
    assert folder.tree() == {"it": b"mine"}
    assert folder.left_in_staging() == (["s-1"] if new.data else [])


def test_a_file_that_takes_the_place_of_one_being_removed_stays(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", TOMBSTONE, expected=mark)
    acts = iter([b"edit", b"another"])

    def hook(name: str, args: tuple[object, ...]) -> None:
        if name in ("rename", "rename_flagged"):
            data = next(acts, None)
            if data is not None:
                folder.write("it", data)

    system.before = hook

    assert commit_one(folder, change) is Outcome.CHANGED
    assert set(folder.tree().values()) == {b"another", b"edit"}
    assert folder.tree()["it"] == b"another"


@pytest.mark.parametrize("max_bytes", [0, 10**9])
@pytest.mark.parametrize("new", [file(b"new"), TOMBSTONE])
def test_a_write_through_a_handle_opened_before_is_found_at_the_last_look(
    tmp_path: Path, new, max_bytes: int
) -> None:
    system = InterposedSystem()
    folder = make_folder(tmp_path / "other", system, max_bytes=max_bytes)
    folder.make_directory("d")
    mark = place(folder.disk, "d/it.txt", file(b"old"))
    change = step(folder.disk, "d/it.txt", new, expected=mark)
    with open(folder.root / "d/it.txt", "ab", buffering=0) as handle:
        system.before = once("sync_file_system", partial(_write, handle))
        assert commit_one(folder, change) is Outcome.DONE

    (name,) = set(folder.tree()) - {"d", "d/it.txt"}
    assert re.fullmatch(r"d/it \(recovered 2030-03-17 [0-9a-f]{6}\)\.txt", name)
    assert folder.tree()[name] == b"old and more"
    assert folder.trash() == []


def _write(handle: FileIO) -> None:
    handle.write(b" and more")


def test_what_was_placed_and_edited_at_once_is_known_to_be_uncertain(
    folder: Folder, system: InterposedSystem
) -> None:
    change = step(folder.disk, "it", file(b"new"))
    system.after = once("rename_flagged", lambda: folder.write("it", b"edit"))
    (result,) = folder.disk.commit([change])
    assert result.fingerprint is not None and result.fingerprint.racy
    found = walked(folder.disk, {rel("it"): result.fingerprint})
    assert [item.path for item in found.changed] == ["it"]


def test_a_metadata_change_leaves_the_content_to_be_read_again(folder: Folder) -> None:
    """The mtime it sets would hide a write that came between its check and itself."""
    place(folder.disk, "it", file(b"old"))
    change = metadata("it", seen(folder.disk, "it"), executable=True)
    (result,) = folder.disk.commit([change])
    assert result.fingerprint is not None and result.fingerprint.racy


@pytest.mark.parametrize("taken", [False, True])
def test_an_edit_just_before_a_file_moves_stays_where_people_see_it(
    folder: Folder, system: InterposedSystem, taken: bool
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    system.before = once("rename_flagged", lambda: folder.write("it", b"edited"))
    if taken:
        # And just after that somebody takes the name.
        system.after = once("rename_flagged", lambda: folder.write("it", b"new"))
    assert commit_one(folder, move("it", "there", mark)) is Outcome.CHANGED
    assert folder.tree() == ({"it": b"new", "there": b"edited"} if taken else {"it": b"edited"})


def test_a_file_that_its_owner_takes_away_the_moment_it_has_moved_is_known_as_uncertain(
    folder: Folder, system: InterposedSystem
) -> None:
    """And not as failed: it would be fetched again."""
    mark = place(folder.disk, "it", file(b"old"))
    system.after = once("rename_flagged", lambda: folder.remove("there"))
    (result,) = folder.disk.commit([move("it", "there", mark)])
    assert result.outcome is Outcome.DONE
    assert result.fingerprint is not None and result.fingerprint.racy
    assert folder.tree() == {}


def test_an_edited_file_that_goes_before_it_could_be_put_back_holds_up_nothing(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    gone = step(folder.disk, "gone", TOMBSTONE, expected=place(folder.disk, "gone", file(b"gone")))
    acts = iter([lambda: folder.write("it", b"edited"), lambda: folder.remove("there")])

    def hook(name: str, _args: tuple[Any, ...]) -> None:
        if name == "rename_flagged":
            next(acts, lambda: None)()

    system.before = hook
    outcomes = [one.outcome for one in folder.disk.commit([move("it", "there", mark), gone])]
    assert outcomes == [Outcome.CHANGED, Outcome.DONE]
    assert folder.trash() == [b"gone"]
    assert folder.left_in_staging() == []


@pytest.mark.parametrize("moves", [True, False])
def test_a_chmod_at_the_moment_of_a_rename_is_found_by_the_next_scan(
    folder: Folder, system: InterposedSystem, moves: bool
) -> None:
    if moves:
        change = move("it", "there", place(folder.disk, "it", file(b"old")))
        system.before = once("rename_flagged", lambda: (folder.root / "it").chmod(0o755))
    else:
        change = step(folder.disk, "there", file(b"old"))
        system.after = once("rename_flagged", lambda: (folder.root / "there").chmod(0o755))
    (result,) = folder.disk.commit([change])
    assert result.outcome is Outcome.DONE
    assert result.fingerprint is not None and not result.fingerprint.executable
    found = walked(folder.disk, {rel("there"): result.fingerprint})
    assert [item.fingerprint.executable for item in found.changed] == [True]


@pytest.mark.parametrize("can", [True, False])
def test_what_was_moved_is_made_durable_with_its_new_name_first(
    folder: Folder, system: InterposedSystem, can: bool
) -> None:
    folder.make_directory("a")
    folder.make_directory("b")
    mark = place(folder.disk, "a/it", file(b"old"))
    calls: list[str] = []
    system.before = None if can else lacks("sync_file_system")
    system.after = lambda name, args: calls.append(_shown(folder, name, args))
    (result,) = folder.disk.commit([move("a/it", "b/it", mark)])
    assert result.outcome is Outcome.DONE
    moved = calls.index("rename_flagged")
    syncs = [call for call in calls[moved:] if "sync" in call]
    assert syncs == (["sync_file_system"] if can else ["fsync it", "fsync b", "fsync a"])


def test_what_was_placed_is_told_of_though_it_cannot_be_looked_at(
    folder: Folder, system: InterposedSystem
) -> None:
    change = step(folder.disk, "it", file(b"new"))

    def fall_sick() -> None:
        system.before = fails("stat", errno.EIO)

    system.after = once("rename_flagged", fall_sick)
    (result,) = folder.disk.commit([change])
    system.before = None
    assert result.outcome is Outcome.DONE
    assert result.fingerprint is not None and result.fingerprint.racy
    assert folder.tree() == {"it": b"new"}


@pytest.mark.parametrize("can", [True, False])
def test_what_was_placed_before_is_made_durable_with_its_name(
    folder: Folder, system: InterposedSystem, can: bool
) -> None:
    folder.make_directory("a")
    folder.write("a/it", b"1")
    calls: list[str] = []
    system.before = None if can else lacks("sync_file_system")
    system.after = lambda name, args: calls.append(_shown(folder, name, args))
    folder.disk.make_durable([rel("a/it"), rel("a/gone"), rel("gone/it")])
    syncs = [call for call in calls if "sync" in call]
    assert syncs == (["sync_file_system"] if can else ["fsync it", "fsync a"])
    calls.clear()
    folder.disk.make_durable([rel("a/it")])
    assert [call for call in calls if "sync" in call] == ["fsync it", "fsync a"]


def _shown(folder: Folder, name: str, args: tuple[Any, ...]) -> str:
    if name != "fsync":
        return name
    return f"fsync {Path(os.readlink(f'/proc/self/fd/{args[0]}')).name}"


@pytest.mark.parametrize("action", ["move", "remove", "replace"])
def test_without_renames_that_replace_nothing_a_new_file_that_takes_the_name_is_not_lost(
    folder: Folder, system: InterposedSystem, action: str
) -> None:
    """As an editor saves, between any two calls."""
    for skip in range(4):
        path = f"it{skip}"
        mark = place(folder.disk, path, file(b"old"))
        change = {
            "move": move(path, f"{path} there", mark),
            "remove": step(folder.disk, path, TOMBSTONE, expected=mark),
            "replace": step(folder.disk, path, file(b"new"), expected=mark),
        }[action]

        def save(path: str = path) -> None:
            (folder.root / "saved").write_bytes(b"edited")
            (folder.root / "saved").rename(folder.root / path)

        lacking = lacks("rename_flagged")
        edit = _AfterAny(("rename", "link", "unlink"), save, skip=skip)
        system.before, system.after = lacking, edit
        folder.disk.commit([change])
        system.before = system.after = None
        assert edit.left >= 0 or b"edited" in folder.tree().values(), (action, skip)


class _AfterAny:
    """Do `action` after the call of one of these names, when `skip` others were."""

    def __init__(self, names: tuple[str, ...], action: Callable[[], None], *, skip: int) -> None:
        self._names = names
        self._action = action
        self.left = skip

    def __call__(self, name: str, _args: tuple[Any, ...]) -> None:
        if name in self._names:
            self.left -= 1
            if self.left == -1:
                self._action()


def test_an_edit_just_after_a_file_has_moved_is_known_to_be_uncertain(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    system.after = once("rename_flagged", lambda: folder.write("there", b"OLD"))
    (result,) = folder.disk.commit([move("it", "there", mark)])
    is_known = result.fingerprint is not None and not result.fingerprint.racy
    assert result.outcome is Outcome.CHANGED or not is_known
    assert list(folder.tree().values()) == [b"OLD"]


def test_a_file_that_another_file_system_holds_does_not_move(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    system.before = fails("rename_flagged", errno.EXDEV)
    assert commit_one(folder, move("it", "there", mark)) is Outcome.FAILED
    assert folder.tree() == {"it": b"old"}


def test_a_file_moves_between_directories_that_are_deeper_than_handles_are_kept(
    folder: Folder,
) -> None:
    deep, deeper = "/".join("a" * 70), "/".join("b" * 140)
    (folder.root / deep).mkdir(parents=True)
    (folder.root / deeper).mkdir(parents=True)
    marks = [place(folder.disk, f"{deep}/{name}", file(name.encode())) for name in ("1", "2")]
    steps = [
        move(f"{deep}/{name}", f"{deeper}/{name}", mark)
        for name, mark in zip(("1", "2"), marks, strict=True)
    ]
    results = folder.disk.commit(steps)
    assert [result.outcome for result in results] == [Outcome.DONE] * 2
    files = {path: data for path, data in folder.tree().items() if data is not None}
    assert files == {f"{deeper}/{name}": name.encode() for name in ("1", "2")}


# --- attacks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [file(b"new"), link("new"), DIRECTORY, TOMBSTONE])
@pytest.mark.parametrize("call", range(12))
def test_a_directory_swapped_for_a_link_at_any_moment_leads_nowhere(
    tmp_path: Path, folder: Folder, system: InterposedSystem, new, call: int
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "it").write_bytes(b"secret")
    folder.make_directory("d")
    mark = place(folder.disk, "d/it", file(b"old")) if new == TOMBSTONE else None
    change = step(folder.disk, "d/it", new, expected=mark)
    calls = [0]

    def hook(name: str, _args: tuple[object, ...]) -> None:
        calls[0] += 1
        if calls[0] == call + 1:
            os.rename(folder.root / "d", folder.root / "moved")
            (folder.root / "d").symlink_to(outside)

    system.before = hook
    folder.disk.commit([change])

    assert os.listdir(outside) == ["it"]
    assert (outside / "it").read_bytes() == b"secret"


# --- file systems that lack something -----------------------------------------------------------


class TestWithoutRenameFlags(DiskContract):
    can_move = False

    @pytest.fixture
    def world(self, tmp_path: Path) -> Folder:
        lacking = lacks("rename_flagged", "sync_file_system", "allocate", "clone_range")
        return make_folder(tmp_path / "folder", InterposedSystem(lacking))


class TestWithoutLinksEither(DiskContract):
    can_move = False

    @pytest.fixture
    def world(self, tmp_path: Path) -> Folder:
        lacking = lacks("rename_flagged", "link", "fsync")
        return make_folder(tmp_path / "folder", InterposedSystem(lacking))


def test_without_swapping_an_edit_at_the_last_moment_is_kept_too(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", file(b"new"), expected=mark)
    edit = once("link", lambda: folder.write("it", b"edit"), skip=1)
    lacking = lacks("rename_flagged")

    def hook(name: str, args: tuple[object, ...]) -> None:
        edit(name, args)
        lacking(name, args)

    system.before = hook
    assert commit_one(folder, change) is Outcome.CHANGED
    assert folder.tree() == {"it": b"edit"}


def test_without_flags_a_taken_name_is_still_refused(tmp_path: Path) -> None:
    for lacking in (lacks("rename_flagged"), lacks("rename_flagged", "link")):
        mover = Mover(InterposedSystem(lacking))
        (tmp_path / "one").write_bytes(b"1")
        (tmp_path / "two").write_bytes(b"2")
        handle = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(FileExistsError):
            mover.put((handle, "one"), (handle, "two"))
        os.close(handle)
        assert (tmp_path / "two").read_bytes() == b"2"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_permissions_cannot_be_set_the_content_lands_all_the_same(
    folder: Folder, system: InterposedSystem, number: int
) -> None:
    system.before = fails("set_mode", number)
    place(folder.disk, "it", file(b"old"))
    mark = place(folder.disk, "it", file(b"new", executable=True))
    assert folder.tree() == {"it": b"new"}
    assert not mark.executable

    assert commit_one(folder, metadata("it", mark, executable=True, mtime_ns=1)) is Outcome.DONE
    assert (folder.root / "it").stat().st_mtime_ns == 1


def test_metadata_of_a_file_that_belongs_to_someone_else_is_told_to_be_out_of_reach(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"1"))
    change = metadata("it", mark, executable=True)

    def not_ours(name: str, _args: tuple[object, ...]) -> None:
        if name in ("set_mode", "set_mtime"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    system.before = not_ours
    (result,) = folder.disk.commit([change])
    assert result.outcome is Outcome.FAILED
    assert result.problem is not None and "not permitted" in result.problem.reason


@pytest.mark.parametrize("new", [file(b"new"), TOMBSTONE])
def test_the_other_name_of_a_hard_linked_file_keeps_its_content(folder: Folder, new) -> None:
    folder.write("it", b"old")
    (folder.root / "other").hardlink_to(folder.root / "it")
    change = step(folder.disk, "it", new, expected=seen(folder.disk, "it"))
    assert commit_one(folder, change) is Outcome.DONE
    assert folder.tree()["other"] == b"old"
    folder.write("other", b"edited later")
    assert folder.tree().get("it") == (b"new" if new.data else None)


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10])
def test_data_that_could_not_be_made_durable_is_neither_placed_nor_trusted(
    folder: Folder, system: InterposedSystem, count: int
) -> None:
    steps = [step(folder.disk, f"{n}", file(b"new"), name=f"s-{n}") for n in range(count)]
    system.before = fails("fsync" if count == 1 else "sync_file_system", errno.EIO)

    results = folder.disk.commit(steps)

    assert {result.outcome for result in results} == {Outcome.FAILED}
    assert results[0].problem is not None and "input/output" in results[0].problem.reason
    assert folder.tree() == {}
    assert folder.disk.staged_names() == []


def test_a_directory_that_could_not_be_made_durable_is_not_reported_as_done(
    folder: Folder, system: InterposedSystem
) -> None:
    change = step(folder.disk, "it", file(b"new"))
    system.before = once("fsync", _raise(errno.EIO), skip=1)
    assert commit_one(folder, change) is Outcome.FAILED


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EXDEV])
@pytest.mark.parametrize("new", [file(b"new"), TOMBSTONE, link("new")])
def test_a_refused_rename_changes_nothing_and_fails_with_a_reason(
    folder: Folder, system: InterposedSystem, new, number: int
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", new, expected=mark)
    rename = "rename" if new == TOMBSTONE else "rename_flagged"
    system.before = fails(rename, number, only=lambda args: args[1] == args[3])

    (result,) = folder.disk.commit([change])

    assert result.outcome is Outcome.FAILED
    assert result.problem is not None and result.problem.path == "it"
    assert folder.tree() == {"it": b"old"}
    system.before = None
    assert folder.disk.staged_names() in ([], ["s-1"])
    assert folder.trash() == []


def test_one_failure_does_not_stop_the_others(folder: Folder, system: InterposedSystem) -> None:
    steps = [step(folder.disk, f"{n}", file(b"new"), name=f"s-{n}") for n in range(5)]
    system.before = once("rename_flagged", _raise(errno.EACCES), skip=2)
    outcomes = [result.outcome for result in folder.disk.commit(steps)]
    assert outcomes.count(Outcome.DONE) == 4
    assert len(folder.tree()) == 4


def test_a_directory_that_cannot_be_made_gives_the_file_back(
    folder: Folder, system: InterposedSystem
) -> None:
    mark = place(folder.disk, "it", file(b"old"))
    change = step(folder.disk, "it", DIRECTORY, expected=mark)
    system.before = fails("make_directory", errno.ENOSPC, only=lambda args: args[1] == "it")
    assert commit_one(folder, change) is Outcome.FAILED
    assert folder.tree() == {"it": b"old"}


def test_a_link_target_that_no_system_takes_fails_with_a_reason(folder: Folder) -> None:
    for target in ("", "a\0b", "x" * 5000):
        assert commit_one(folder, step(folder.disk, "it", link(target))) is Outcome.FAILED
    assert folder.tree() == {}
    assert folder.left_in_staging() == []


def test_a_staging_file_of_the_wrong_size_is_never_placed(folder: Folder) -> None:
    change = step(folder.disk, "it", file(b"new"))
    stage(folder.disk, "s-1", b"ne")
    assert commit_one(folder, change) is Outcome.FAILED
    assert folder.tree() == {}


def _raise(number: int) -> Callable[[], None]:
    def action() -> None:
        raise OSError(number, os.strerror(number))

    return action


# --- order and metadata -------------------------------------------------------------------------


def test_data_and_metadata_are_durable_before_a_name_appears_and_names_before_the_return(
    folder: Folder, system: InterposedSystem
) -> None:
    change = step(folder.disk, "it", file(b"new"))
    calls: list[str] = []
    system.before = lambda name, _args: calls.append(name)
    folder.disk.commit([change])

    order = [name for name in calls if name in ("set_mtime", "set_mode", "fsync", "rename_flagged")]
    assert order == ["set_mode", "set_mtime", "fsync", "rename_flagged", "fsync"]


def test_a_large_group_is_made_durable_with_two_syncs(
    folder: Folder, system: InterposedSystem
) -> None:
    steps = [step(folder.disk, f"{n}", file(b"new"), name=f"s-{n}") for n in range(20)]
    place(folder.disk, "old", file(b"old"))
    steps.append(step(folder.disk, "old", TOMBSTONE, expected=seen(folder.disk, "old")))
    calls: list[str] = []
    system.before = lambda name, _args: calls.append(name)
    folder.disk.commit(steps)
    assert calls.count("sync_file_system") == 2
    assert "fsync" not in calls


@pytest.mark.parametrize(
    ("before", "executable", "after"),
    [(0o640, False, 0o640), (0o640, True, 0o750), (0o700, False, 0o600), (0o4751, True, 0o751)],
)
def test_a_replaced_file_keeps_its_permissions_but_for_the_exec_bit(
    folder: Folder, before: int, executable: bool, after: int
) -> None:
    folder.write("it", b"old")
    (folder.root / "it").chmod(before)
    place(folder.disk, "it", file(b"new", executable=executable))
    assert (folder.root / "it").stat().st_mode & 0o7777 == after


def test_a_new_file_gets_the_usual_permissions(folder: Folder) -> None:
    place(folder.disk, "plain", file(b"1"))
    place(folder.disk, "program", file(b"1", executable=True))
    usual = 0o666 & ~umask()
    assert (folder.root / "plain").stat().st_mode & 0o7777 == usual
    assert (folder.root / "program").stat().st_mode & 0o7777 == usual | (usual & 0o444) >> 2


def test_an_mtime_before_1970_is_kept(folder: Folder) -> None:
    mark = place(folder.disk, "it", file(b"1", mtime_ns=-1_000_000_001))
    assert mark.mtime_ns == -1_000_000_001


@pytest.mark.parametrize("mtime_ns", [-(1 << 63) + 1, -1, 0, (1 << 63) - 1])
def test_a_time_from_any_century_is_no_obstacle(folder: Folder, mtime_ns: int) -> None:
    """A file system that does not reach so far shows another, which is none of a person's."""
    mark = place(folder.disk, "it", file(b"1", mtime_ns=mtime_ns))
    assert walked(folder.disk, {rel("it"): mark}) == ([], [], [])
    change = metadata("it", mark, executable=True, mtime_ns=-mtime_ns)
    assert commit_one(folder, change) is Outcome.DONE


def test_placing_beside_a_removed_directory_makes_it_anew(folder: Folder) -> None:
    """A handle of the removed one must not be used."""
    folder.make_directory("d")
    steps = [
        step(folder.disk, "d/x", TOMBSTONE),
        step(folder.disk, "d", TOMBSTONE, expected=seen(folder.disk, "d")),
        step(folder.disk, "d", DIRECTORY),
        step(folder.disk, "d/it", file(b"1")),
    ]
    assert [result.outcome for result in folder.disk.commit(steps)] == [Outcome.DONE] * 4
    assert folder.tree() == {"d": None, "d/it": b"1"}


@pytest.mark.slow
def test_more_directories_than_handles_are_kept_open(folder: Folder) -> None:
    deep = "/".join(f"{n}" for n in range(150))
    steps = [step(folder.disk, deep[:at], DIRECTORY) for at, c in enumerate(deep) if c == "/"]
    steps.append(step(folder.disk, deep, file(b"1")))
    assert {result.outcome for result in folder.disk.commit(steps)} == {Outcome.DONE}
    replaced = place(folder.disk, deep, file(b"2"))
    assert folder.disk.hash_file(rel(deep)).fingerprint[:6] == replaced[:6]
