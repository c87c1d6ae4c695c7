"""A race as it stands in the documentation: between the marks of a page, and as a plot."""

from pathlib import Path

from tests.race.measures import MEASURES, Measure, ratio, ratio_text
from tests.race.plot import draw
from tests.race.record import Race, WorkDone

BEGIN, END = "<!-- race: begin -->", "<!-- race: end -->"


def write(race: Race, docs: Path) -> None:
    """Put `race` into performance.md below `docs`, and draw performance.svg beside it. Raises
    ValueError with a sentence if the page has no marks."""
    page = docs / "performance.md"
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}; put them back.")
    (docs / "performance.svg").write_text(draw(race))
    page.write_text(f"{before}{BEGIN}\n\n{rendered(race)}\n\n{END}{after}")


def rendered(race: Race) -> str:
    tables = [
        f"### {measure.title[0].upper()}{measure.title[1:]}\n\n{table}"
        for measure in MEASURES
        if (table := _table(measure, race))
    ]
    parts = [_about(race), "![Seconds of each work, on a logarithmic scale](performance.svg)"]
    return "\n\n".join([*parts, *tables, *_failures(race)])


def _about(race: Race) -> str:
    machine = race.machine
    lines = [
        f"- {', '.join(f'{one.title} {one.version}' for one in race.contenders)}",
        f"- {machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB, "
        f"{machine.file_system}, Linux {machine.kernel}, Python {machine.python}; "
        f"load before: {machine.load:.2f}",
        _runs(race),
    ]
    if race.absent:
        lines.append(f"- not installed there: {', '.join(race.absent)}")
    return "\n".join(lines)


def _runs(race: Race) -> str:
    if race.repeat == 1:
        return "- one run"
    once = [
        work.title for work in race.works if all(len(of.runs) < 2 for of in work.results.values())
    ]
    return f"- median of {race.repeat} runs" + (f"; one run of: {'; '.join(once)}" if once else "")


def _table(measure: Measure, race: Race) -> str:
    """Empty if nobody tells anything of it."""
    rows = [
        [work.title, *_cells(measure, work, race)]
        for work in race.works
        if measure.is_of(work) and any(measure.of(one) is not None for one in work.results.values())
    ]
    if not rows:
        return ""
    heads = ["work", *(one.title for one in race.contenders)]
    rule = "|---|" + "---:|" * len(race.contenders)
    return "\n".join([_row(heads), rule, *map(_row, rows)])


def _cells(measure: Measure, work: WorkDone, race: Race) -> list[str]:
    first, *others = (work.results.get(one.name) for one in race.contenders)
    cells = [measure.text(first)]
    for result in others:
        found = ratio(measure.of(first), measure.of(result))
        text = measure.text(result)
        cells.append(text if found is None else f"{text} ({ratio_text(found)})")
    return cells


def _failures(race: Race) -> list[str]:
    lines = [
        f"- {work.title}: {one.title}: {result.failed}"
        for work in race.works
        for one in race.contenders
        if (result := work.results.get(one.name)) and result.failed
    ]
    return ["\n".join(["### Failed\n", *lines])] if lines else []


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
