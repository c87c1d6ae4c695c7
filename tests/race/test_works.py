"""The works change trees as their titles say."""

from pathlib import Path

import pytest

from tests.race.works import Sizes, Work, content_of_edit, scenarios, to_edit

TINY = Sizes(
    files=7, big=300_000, inserted=960, appended=500, edits=3, idle_s=0.01, unchanged=5, most=12
)


def work(name: str) -> Work:
    return next(each for one in scenarios(TINY) for each in one.works if each.name == name)


def change(root: Path, *names: str) -> None:
    for name in names:
        work(name).change(root)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_every_work_has_a_name_of_its_own() -> None:
    names = [each.name for one in scenarios(Sizes()) for each in one.works]

    assert len(names) == len(set(names))


def test_a_move_leaves_no_file_where_it_was_and_loses_none(tmp_path: Path) -> None:
    (tmp_path / ".p2psync").mkdir()
    change(tmp_path, "small", "move")

    assert len(files(tmp_path / "moved")) == TINY.files
    assert {path.name for path in tmp_path.iterdir()} == {".p2psync", "moved"}


def test_edits_are_of_different_files_and_have_different_contents(tmp_path: Path) -> None:
    change(tmp_path, "small", "move")
    paths = to_edit(tmp_path, TINY.edits)

    assert len(set(paths)) == TINY.edits
    assert all((tmp_path / path).is_file() for path in paths)
    assert content_of_edit(0) != content_of_edit(1)
    assert len(to_edit(tmp_path, 100)) == TINY.files


def test_the_big_file_grows_in_front_and_at_its_end_and_is_copied(tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    change(tmp_path, "big")
    first = big.read_bytes()
    change(tmp_path, "insert")
    second = big.read_bytes()
    change(tmp_path, "append", "copy")

    assert len(first) == TINY.big
    assert second[960:] == first
    assert big.read_bytes()[:-500] == second
    assert [path.read_bytes() for path in files(tmp_path)] == [big.read_bytes()] * 2


def test_nine_in_ten_of_a_million_files_are_empty(tmp_path: Path) -> None:
    change(tmp_path, "million")

    sizes = sorted(path.stat().st_size for path in files(tmp_path))
    assert sizes == [0] * 10 + [1, 2]


@pytest.mark.parametrize("name", ["restart", "million-restart", "idle"])
def test_where_nothing_is_to_change_nothing_does(name: str, tmp_path: Path) -> None:
    change(tmp_path, name)

    assert list(tmp_path.iterdir()) == []


def test_sizes_are_scaled_and_never_vanish() -> None:
    assert Sizes().scaled(0.001) == Sizes(
        files=10,
        big=536_871,
        inserted=1,
        appended=1049,
        edits=1,
        idle_s=0.03,
        unchanged=100,
        most=1000,
    )
    assert Sizes().scaled(1) == Sizes()
