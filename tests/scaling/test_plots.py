"""The plots and tables that docs show are those of docs/scaling.json."""

import datetime
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.scaling.plots import draw
from tests.scaling.tables import filled

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def results() -> Any:
    return json.loads((DOCS / "scaling.json").read_text())


@pytest.mark.slow
def test_the_pictures_in_docs_are_those_of_the_results(results: Any) -> None:
    drawn = draw(results)
    assert set(drawn) == {path.name for path in DOCS.glob("scaling-*.svg")}
    for name, picture in drawn.items():
        assert (DOCS / name).read_bytes() == picture, name


def test_the_tables_in_docs_are_those_of_the_results(results: Any) -> None:
    page = (DOCS / "scaling.md").read_text()
    assert page.count("<!-- table: ") == page.count("<!-- end -->") == 12
    assert filled(page, results) == page


def test_a_picture_runs_nothing_fetches_nothing_and_tells_no_date() -> None:
    hops = {"line": {"16": {"most": 15, "mean": 5.7}, "32": {"most": 31, "mean": 11.0}}}
    (picture,) = draw({"graphs": hops}).values()
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(picture).iter()}
    assert "path" in tags
    assert "script" not in tags
    assert datetime.date.today().isoformat().encode() not in picture
    assert picture.count(b"http") == picture.count(b"http://www.w3.org/")


def test_what_was_not_looked_for_is_not_drawn() -> None:
    assert draw({}) == {}


def test_a_table_stands_between_its_marks_and_all_else_stays() -> None:
    results = {"sessions": {"1": {"descriptors": 1.0, "idle": 2048, "after_bulk": 1024 * 4000}}}
    page = "before\n<!-- table: sessions -->\nold\n<!-- end -->\nafter\n"
    made = filled(page, results)
    assert made.startswith("before\n<!-- table: sessions -->\n| of one session |  |\n|---|---|\n")
    assert made.endswith(
        "| KiB of memory, after a megabyte each way | 4 000 |\n<!-- end -->\nafter\n"
    )
    assert filled(made, results) == made
