"""Indexes of many files, in small."""

from pathlib import Path

import pytest

from tests.scaling.index_size import fill, measure_sizes, measure_work, rows


def test_equal_seeds_give_equal_files() -> None:
    assert list(rows(20, vector=3, seed=1)) == list(rows(20, vector=3, seed=1))
    assert list(rows(20, vector=3, seed=1)) != list(rows(20, vector=3, seed=2))


@pytest.mark.parametrize("vector", [1, 5, 128])
def test_every_file_was_edited_by_so_many_replicas_and_its_version_is_whole(vector: int) -> None:
    for row in rows(5, vector=vector, seed=1):
        version = row.entry.version
        assert len(version.vector) == vector
        assert list(version.vector) == sorted(version.vector)
        assert version.covers(version.dot)


@pytest.mark.slow
async def test_a_replica_more_costs_nineteen_bytes_a_file(tmp_path: Path) -> None:
    one, nine = [await measure_sizes(tmp_path, 300, vector=vector, seed=1) for vector in (1, 9)]
    assert (nine.unpacked - one.unpacked) / 8 == pytest.approx(19, abs=0.1)
    assert one.on_wire < one.unpacked < one.on_disk < nine.on_disk


@pytest.mark.slow
async def test_all_files_of_an_index_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    await fill(path, 2100, vector=1, seed=1)
    work = await measure_work(path)
    assert work.files == 2100
    assert all(each.seconds > 0 for each in (work.opened, work.recorded, work.digested, work.sent))
