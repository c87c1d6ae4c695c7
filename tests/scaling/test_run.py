"""Which measurements are made, and where what they found goes."""

import json
from pathlib import Path

import pytest

from tests.scaling.run import Task, as_text, main, merged


def test_results_stand_in_one_order_whatever_was_found_first() -> None:
    found = [
        Task("changes", "line", 16, 1),
        Task("changes", "mesh", 128, 1),
        Task("sizes", "", 8, 1),
        Task("changes", "mesh", 2, 1),
        Task("newcomer", "mesh", 2, 1),
    ]
    orders = []
    for listed in (found, found[::-1]):
        results: dict[str, object] = {}
        for task in listed:
            results = merged(results, task, {"of": task.number})
        orders.append(as_text(results))
    assert orders[0] == orders[1]
    assert json.loads(orders[0])["changes"]["mesh"] == {"2": {"of": 2}, "128": {"of": 128}}
    assert orders[0].index('"mesh"') < orders[0].index('"line"')


def test_what_is_found_anew_takes_the_place_of_what_was_found_before() -> None:
    task = Task("changes", "mesh", 2, 1)
    results = merged(merged({}, task, {"a": 1}), task, {"b": 2})
    assert results == {"changes": {"mesh": {"2": {"b": 2}}}}


@pytest.mark.slow
def test_a_run_keeps_other_parts_and_draws_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"sizes": {"1": {"on_disk": 2.0, "on_wire": 1.0, "unpacked": 1.5}}}
    (tmp_path / "scaling.json").write_text(json.dumps(kept))
    assert main(["--parts", "sessions", "--into", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "scaling.json").read_text())
    assert results.keys() == {"sizes", "sessions"}
    assert results["sizes"] == kept["sizes"]
    assert results["sessions"]["50"]["descriptors"] == 1.0
    assert (tmp_path / "scaling-vectors.svg").exists()
    assert "sessions  50:" in capsys.readouterr().out


def test_an_unknown_part_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--parts", "graphs,cubes"])
    assert "there is no part cubes" in capsys.readouterr().err
