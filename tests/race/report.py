"""A race for the eyes of who ran it: a table for each work."""

from collections.abc import Sequence

from tests.race.measures import MEASURES, Measure, ratio, ratio_text
from tests.race.record import Contender, Race, WorkDone


def text(race: Race) -> str:
    return "\n\n".join(table(work, race.contenders) for work in race.works)


def table(work: WorkDone, contenders: Sequence[Contender]) -> str:
    """A row for each program. In brackets, the first one's figure to that of this row."""
    told = [
        measure
        for measure in MEASURES
        if measure.is_of(work) and any(measure.of(one) is not None for one in work.results.values())
    ]
    rows = [
        ["", *(measure.title for measure in told)],
        *(
            [one.title, *(_cell(measure, work, one, contenders[0]) for measure in told)]
            for one in contenders
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    reasons = [
        f"{one.title} failed: {result.failed}"
        for one in contenders
        if (result := work.results.get(one.name)) and result.failed
    ]
    return "\n  ".join([work.title, *lines, *reasons])


def _cell(measure: Measure, work: WorkDone, one: Contender, first: Contender) -> str:
    result = work.results.get(one.name)
    text = measure.text(result)
    if one == first:
        return text
    found = ratio(measure.of(work.results.get(first.name)), measure.of(result))
    return text if found is None else f"{text} (1 : {ratio_text(found)})"
