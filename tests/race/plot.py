"""The seconds of each work as bars."""

import math
from collections.abc import Sequence
from typing import Any

from tests.race.measures import SECONDS
from tests.race.record import Race
from tests.support.drawing import pygal

_COLOURS = ("#0b6e99", "#d9822b", "#7d8b99", "#8a5fb5", "#c3cbd3")


def draw(race: Race) -> str:
    """An SVG document that is the same for the same race, on any day. Nothing in it runs."""
    chart = pygal.HorizontalBar(
        js=(),
        no_prefix=True,
        disable_xml_declaration=True,
        logarithmic=True,
        width=900,
        height=120 + 22 * len(race.works) * len(race.contenders),
        legend_at_bottom=True,
        legend_at_bottom_columns=len(race.contenders),
        truncate_label=-1,
        truncate_legend=-1,
        print_values=False,
        x_title="seconds, logarithmic",
        style=pygal.style.Style(
            background="white",
            plot_background="white",
            font_family="sans-serif",
            colors=_COLOURS,
        ),
    )
    # Bars are drawn from below.
    works = [work for work in reversed(race.works) if SECONDS.is_of(work)]
    chart.x_labels = [work.title for work in works]
    bars = {
        one.title: [SECONDS.of(work.results.get(one.name)) for work in works]
        for one in race.contenders
    }
    for title, values in bars.items():
        chart.add(title, values)
    chart.y_labels = marks = _marks(
        [value for values in bars.values() for value in values if value]
    )
    chart.zero = marks[0]
    chart.add_xml_filter(_still)
    drawn: str = chart.render()
    return drawn + "\n"


def _marks(values: Sequence[float]) -> list[float]:
    """Few enough for their numbers to have room, and all values between the outer ones."""
    lowest, highest = min(values, default=1.0), max(values, default=1.0)
    begin, end = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    marks = [step * 10.0**power for power in range(begin, end + 1) for step in (1, 3)]
    above = [mark for mark in marks if mark >= highest]
    return [mark for mark in marks if lowest / 4 < mark < highest] + above[:1]


def _still(root: Any) -> Any:
    """Without scripts, and without comments, which tell the day."""
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.endswith("script"):
                parent.remove(child)
    root.attrib.pop("id", None)
    return root
