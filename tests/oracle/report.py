"""What a check found, for people and for programs."""

from collections.abc import Sequence
from typing import Any

from tests.oracle.judge import HARMLESS, PROPERTIES
from tests.oracle.run import Outcome

_MOST_STORIES = 12
_FACTS = ("operations", "kills", "partitions", "stops", "copies", "unclear", "seconds")


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each system, a column for each property and for what was done."""
    heads = ["system", *PROPERTIES, "seed", *_FACTS]
    rows = [
        [
            f"{one.system} {one.version}",
            *(str(one.counts[name]) for name in PROPERTIES),
            str(one.seed),
            *(f"{getattr(one, fact):.0f}" for fact in _FACTS),
        ]
        for one in outcomes
    ]
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heads, *rows]
    ]
    legend = [f"  {name}: {meaning}" for name, meaning in PROPERTIES.items()]
    return "\n".join([*lines, "", *legend])


def stories(outcome: Outcome, *, strict: bool = False) -> str:
    """Each violation with all that led to it, the first ones."""
    told = [str(one) for one in outcome.violations if strict or not one.is_harmless]
    more = len(told) - _MOST_STORIES
    if more > 0:
        told = [*told[:_MOST_STORIES], f"… and {more} more"]
    return "\n".join(told)


def as_json(outcomes: Sequence[Outcome], absent: Sequence[str]) -> dict[str, Any]:
    return {
        "absent": list(absent),
        "harmless": sorted(HARMLESS),
        "systems": [
            {
                "system": one.system,
                "version": one.version,
                "seed": one.seed,
                "files_read": one.files_read,
                "stretches": one.stretches,
                **{fact: getattr(one, fact) for fact in _FACTS},
                "counts": {name: one.counts[name] for name in PROPERTIES},
                "violations": [
                    {
                        "property": violation.rule,
                        "device": violation.device,
                        "path": violation.path,
                        "text": violation.text,
                        "tokens": violation.tokens,
                        "story": violation.story,
                    }
                    for violation in one.violations
                ],
            }
            for one in outcomes
        ],
    }
