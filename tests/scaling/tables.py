"""The tables of docs/scaling.md, made of what was found, between marks that name them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests.scaling.meter import NOW_AND_THEN

Results = Mapping[str, Any]
Cell = str | int | float

_MARKED = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CONTENT = {"ChunkReply"}
_KINDS = ("new file", "edit", "deletion", "large file", "100 files")
_COMPARED = (16, 32, 64, 128)
_FAR = 10_000_000
_MIB = 1 << 20


def filled(text: str, results: Results) -> str:
    """`text` with every table made anew."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}{_TABLES[found[2]](results)}\n{found[3]}"

    return _MARKED.sub(table, text)


def _table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(map(_told, row))} |" for row in rows)])


def _told(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or cell >= 100:
        return f"{cell:,.0f}".replace(",", " ")
    return f"{cell:.3g}"


def _sum(counted: Mapping[str, int], *, without: Iterable[str] = ()) -> int:
    left_out = {*NOW_AND_THEN, *without}
    return sum(count for name, count in counted.items() if name not in left_out)


def _by_count(results: Results, part: str, shape: str) -> list[tuple[int, Any]]:
    return [(int(count), found) for count, found in results[part].get(shape, {}).items()]


# --- devices -------------------------------------------------------------------------------------


def _new_file(results: Results) -> str:
    rows = []
    for count, costs in _by_count(results, "changes", "mesh"):
        cost = costs["new file"]
        said = cost["messages"]
        rows.append(
            [
                count,
                *(said.get(name, 0) for name in ("IndexBatch", "IndexAck", "Status")),
                said["ChunkRequest"] + said["ChunkReply"],
                _sum(said),
                _sum(cost["bytes"], without=_CONTENT) / 1000,
                cost["most_messages"],
                cost["most_writes"],
                cost["all_writes"],
            ]
        )
    heads = "devices|IndexBatch|IndexAck|Status|chunk messages|messages|kB without content"
    heads += "|messages of the busiest|its durable transactions|those of all"
    return _table(heads.split("|"), rows)


def _kinds(results: Results) -> str:
    counts = [pair for pair in _by_count(results, "changes", "mesh") if pair[0] in (8, 32, 128)]
    rows = [
        [
            kind,
            *(_sum(costs[kind]["messages"]) for _, costs in counts),
            *(_sum(costs[kind]["bytes"], without=_CONTENT) / 1000 for _, costs in counts),
            *(costs[kind]["most_writes"] for _, costs in counts),
        ]
        for kind in _KINDS
    ]
    heads = ["change"]
    for what in ("messages", "kB without content", "transactions of the busiest"):
        heads += [f"{what}, {count} devices" for count, _ in counts]
    return _table(heads, rows)


def _shapes(results: Results) -> str:
    rows: list[list[Cell]] = []
    for shape in results["changes"]:
        for count, costs in _by_count(results, "changes", shape):
            if count not in _COMPARED:
                continue
            new, large = costs["new file"], costs["large file"]
            rows.append(
                [
                    shape,
                    count,
                    results["graphs"][shape][str(count)]["most"],
                    new["seconds"],
                    _sum(new["messages"]),
                    _sum(new["bytes"], without=_CONTENT) / 1000,
                    new["most_writes"],
                    large["author_bytes"] / 1e6,
                    large["most_bytes"] / 1e6,
                    large["seconds"],
                ]
            )
    heads = "shape|devices|hops|seconds|messages|kB without content|transactions of the busiest"
    heads += "|copies of a large file that its author sends|that any device sends|seconds for it"
    return _table(heads.split("|"), rows)


def _quiet(results: Results) -> str:
    rows = []
    for count, costs in _by_count(results, "changes", "mesh"):
        quiet, after = costs["quiet minute"], costs["minute after"]
        rows.append(
            [
                count,
                count * (count - 1) // 2,
                sum(quiet["messages"].values()),
                sum(quiet["messages"].values()) / count,
                quiet["most_bytes"],
                after["messages"].get("FolderDigest", 0),
            ]
        )
    heads = "devices|sessions|messages a minute|of each device|bytes of the busiest"
    return _table([*heads.split("|"), "digests in the minute after a change"], rows)


def _group(results: Results) -> str:
    rows = []
    for count, costs in _by_count(results, "changes", "mesh"):
        start, back, admission = (costs[name] for name in ("start", "return", "admission"))
        rows.append(
            [
                count,
                start["messages"]["Addresses"],
                start["bytes"]["Addresses"] / 1000,
                back["messages"]["Addresses"],
                admission["messages"]["Roster"],
                admission["bytes"]["Roster"] / 1000,
            ]
        )
    heads = "devices|Addresses when all start|kB|when one comes back"
    return _table([*heads.split("|"), "Rosters when one is admitted", "kB, played"], rows)


def _newcomer(results: Results) -> str:
    rows = []
    for shape in results["newcomer"]:
        for count, cost in _by_count(results, "newcomer", shape):
            rows.append(
                [
                    shape,
                    count,
                    cost["messages"]["IndexBatch"],
                    cost["bytes"]["IndexBatch"] / 1000,
                    cost["most_offers"],
                ]
            )
    heads = "shape|devices with it|IndexBatch|kB of them|offers at one time"
    return _table(heads.split("|"), rows)


# --- files ---------------------------------------------------------------------------------------


def _vectors(results: Results) -> str:
    rows = [
        [int(vector), found["on_disk"], found["unpacked"], found["on_wire"]]
        for vector, found in results["sizes"].items()
    ]
    heads = "replicas that edited each file|on the disk|in a batch, unpacked|in a batch, as sent"
    return _table(heads.split("|"), rows)


def _files(results: Results) -> str:
    found = results["files"]
    counts = list(found)
    rows: list[list[Cell]] = [
        ["MiB on the disk", *(found[each]["on_disk"] / _MIB for each in counts)]
    ]
    for title, key in (
        ("open", "opened"),
        ("record one change", "recorded"),
        ("what is new since", "queried"),
        ("digest", "digested"),
        ("all fingerprints", "fingerprints"),
        ("read and pack all", "sent"),
    ):
        rows.append([f"{title}, s", *(found[each][key]["seconds"] for each in counts)])
    rows.append(
        [
            "all fingerprints, MiB of memory",
            *(found[each]["fingerprints"]["memory"] / _MIB for each in counts),
        ]
    )
    for row in rows:
        *_, before, last = row
        grows = float(last) > 3 * float(before)
        row.append(float(last) * _FAR / int(counts[-1]) if grows else "as before")
    heads = ["", *(_told(int(each)) for each in counts), f"{_told(_FAR)} (extrapolated)"]
    return _table(heads, rows)


def _sessions(results: Results) -> str:
    (found,) = results["sessions"].values()
    return _table(
        ["of one session", ""],
        [
            ["descriptors", found["descriptors"]],
            ["KiB of memory, idle", found["idle"] / 1024],
            ["KiB of memory, after a megabyte each way", found["after_bulk"] / 1024],
        ],
    )


# --- graphs --------------------------------------------------------------------------------------


def _hops(results: Results) -> str:
    counts = sorted({int(count) for found in results["graphs"].values() for count in found})
    rows: list[list[Cell]] = []
    for shape, found in results["graphs"].items():
        told = [found.get(str(count)) for count in counts]
        rows.append(
            [shape, *(f"{each['most']} ({each['mean']:.1f})" if each else "" for each in told)]
        )
    return _table(["hops: most (mean)", *map(str, counts)], rows)


def _away(results: Results) -> str:
    percents = list(next(iter(results["away"].values())))
    rows = [
        [shape, *(f"{100 * found[each]:.1f}" for each in percents)]
        for shape, found in results["away"].items()
    ]
    return _table(["away, %", *percents], rows)


def _one_more(results: Results) -> str:
    found = results["one more"]
    degrees = list(next(iter(found.values())))
    rows = [[f"rings-{degree}", *(each[degree] for each in found.values())] for degree in degrees]
    return _table(["connections changed", *found], rows)


_TABLES: dict[str, Callable[[Results], str]] = {
    "new-file": _new_file,
    "kinds": _kinds,
    "shapes": _shapes,
    "quiet": _quiet,
    "group": _group,
    "newcomer": _newcomer,
    "vectors": _vectors,
    "files": _files,
    "sessions": _sessions,
    "hops": _hops,
    "away": _away,
    "one-more": _one_more,
}
