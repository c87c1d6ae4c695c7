"""Draws what was found. Equal results give equal bytes."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.support.drawing import pygal

_PLAYED = ("mesh", "star", "rings-8", "rings-4")
_OVERLAYS = ("line", "ring", "rings-4", "rings-6", "rings-8")
_FAR = 10_000_000

_COLORS = ("#c1272d", "#1f5fa8", "#2e8b57", "#e69f00", "#7b4b94", "#444444")

Point = tuple[float, float]


def draw(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Pictures by file name, of the parts that there are."""
    drawn: dict[str, Any] = {}
    if changes := results.get("changes"):
        drawn["scaling-messages.svg"] = _plot(
            "Messages for one new file, all devices together",
            "devices",
            {
                shape: _over_devices(changes.get(shape, {}), "new file", _messages)
                for shape in _PLAYED
            },
        )
        drawn["scaling-writes.svg"] = _plot(
            "Durable transactions for one new file, at the device that has most",
            "devices",
            {
                shape: _over_devices(
                    changes.get(shape, {}), "new file", lambda cost: float(cost["most_writes"])
                )
                for shape in ("mesh", "star", "rings-8", "rings-6", "rings-4")
            },
        )
    if newcomers := results.get("newcomer"):
        drawn["scaling-newcomer.svg"] = _plot(
            "KiB of index on the links when a device joins a folder of 1000 files",
            "devices",
            {
                shape: [
                    (int(count), cost["bytes"]["IndexBatch"] / 1024)
                    for count, cost in newcomers.get(shape, {}).items()
                ]
                for shape in ("mesh", "rings-6")
            },
        )
    if graphs := results.get("graphs"):
        drawn["scaling-hops.svg"] = _plot(
            "Hops from one device to the farthest",
            "devices",
            {
                shape: [(int(count), hops["most"]) for count, hops in graphs[shape].items()]
                for shape in _OVERLAYS
                if shape in graphs
            },
        )
    if away := results.get("away"):
        drawn["scaling-away.svg"] = _plot(
            "Share of the present devices that are in one part, in %, of 128",
            "devices that are away, in %",
            {
                shape: [(int(percent), 100 * share) for percent, share in away[shape].items()]
                for shape in _OVERLAYS
                if shape in away
            },
            logarithmic=False,
        )
    if sizes := results.get("sizes"):
        drawn["scaling-vectors.svg"] = _plot(
            "Bytes per file of the index",
            "replicas that have edited each file",
            {
                title: [(int(vector), found[key]) for vector, found in sizes.items()]
                for title, key in (("on the disk", "on_disk"), ("on a link", "on_wire"))
            },
        )
    if files := results.get("files"):
        lines = {
            title: [(int(count), found[key]["seconds"]) for count, found in files.items()]
            for title, key in (
                ("open", "opened"),
                ("digest", "digested"),
                ("fingerprints", "fingerprints"),
                ("send all", "sent"),
                ("record one", "recorded"),
                ("what is new", "queried"),
            )
        }
        drawn["scaling-files.svg"] = _plot(
            "Seconds that an index takes; for 10 million files extrapolated",
            "files",
            {title: [*points, _further(points)] for title, points in lines.items()},
        )
    return {name: chart.render().encode() for name, chart in drawn.items()}


def _further(points: Sequence[Point]) -> Point:
    """On the line through the last two, both axes logarithmic."""
    (one, low), (two, high) = points[-2:]
    slope = math.log(high / low) / math.log(two / one)
    return _FAR, high * (_FAR / two) ** slope


def _messages(cost: Mapping[str, Any]) -> float:
    kept = (each for name, each in cost["messages"].items() if name not in ("Ping", "Pong"))
    return float(sum(kept))


def _over_devices(by_count: Mapping[str, Any], phase: str, of: Any) -> list[Point]:
    return [(int(count), of(costs[phase])) for count, costs in by_count.items()]


def _plot(
    title: str, below: str, lines: Mapping[str, Iterable[Point]], *, logarithmic: bool = True
) -> Any:
    chart = pygal.XY(
        title=title,
        x_title=below,
        logarithmic=logarithmic,
        width=720,
        height=420,
        legend_at_bottom=True,
        margin_right=50,
        dots_size=3,
        style=pygal.style.DefaultStyle(
            font_family="sans-serif",
            background="white",
            plot_background="white",
            colors=_COLORS,
        ),
        js=(),
        # Otherwise drawn at random, and named in every rule of the style.
        no_prefix=True,
        disable_xml_declaration=True,
    )
    chart.uuid = "chart"
    chart.add_xml_filter(_plain)
    listed = {name: sorted(points) for name, points in lines.items()}
    if logarithmic:
        chart.y_labels = _round_numbers(
            [height for points in listed.values() for _, height in points]
        )
    chart.x_labels = sorted({at for points in listed.values() for at, _ in points})
    for name, points in listed.items():
        if points:
            chart.add(name, points)
    return chart


def _round_numbers(heights: Sequence[float]) -> list[float]:
    """Few enough to be read."""
    low, high = math.log10(min(heights)), math.log10(max(heights))
    digits = (1,) if high - low > 3 else (1, 2, 5)
    found = [digit * 10.0**power for power in range(-9, 12) for digit in digits]
    return [each for each in found if low <= math.log10(each) <= high]


def _plain(svg: ET.Element) -> ET.Element:
    """Without a script, and without the day on which it was drawn."""
    for parent in list(svg.iter()):
        for child in list(parent):
            if child.tag in ("script", ET.Comment):
                parent.remove(child)
    ET.indent(svg, " ")
    return svg
