"""The seconds of each work as bars."""

from typing import Any

import pygal
from pygal.style import Style

from tests.race.measures import SECONDS
from tests.race.record import Race

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
        style=Style(
            background="white",
            plot_background="white",
            font_family="sans-serif",
            colors=_COLOURS,
        ),
    )
    # Bars are drawn from below.
    works = list(reversed(race.works))
    chart.x_labels = [work.title for work in works]
    for one in race.contenders:
        chart.add(one.title, [SECONDS.of(work.results.get(one.name)) for work in works])
    chart.add_xml_filter(_still)
    drawn: str = chart.render()
    return drawn + "\n"


def _still(root: Any) -> Any:
    """Without scripts, and without comments, which tell the day."""
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.endswith("script"):
                parent.remove(child)
    root.attrib.pop("id", None)
    return root
