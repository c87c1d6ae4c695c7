"""What is told of each shape as a graph alone, for groups too large to be played."""

import random
from dataclasses import dataclass

from tests.scaling.overlay import (
    SHAPES,
    changed_by_one_more,
    diameter,
    ids_of,
    mean_distance,
    neighbours,
    share_together,
)

_DRAWS = 50
_DEGREES = (4, 6, 8)


@dataclass(frozen=True, slots=True)
class Hops:
    most: int
    """Between any two devices."""
    mean: float


def hops(shape: str, count: int) -> Hops:
    around = neighbours(SHAPES[shape](count), range(count))
    return Hops(diameter(around), round(mean_distance(around), 2))


def together(shape: str, count: int, *, away_percent: int, seed: int) -> float:
    """The mean share of the present devices that is in the largest part, over draws of chance."""
    edges, source = SHAPES[shape](count), random.Random(seed)
    away = count * away_percent // 100
    draws = [share_together(edges, count, away=away, source=source) for _ in range(_DRAWS)]
    return round(sum(draws) / _DRAWS, 4)


def changed(count: int) -> dict[str, int]:
    """Connections made or ended when one device more joins so many, by degree."""
    return {str(degree): changed_by_one_more(ids_of(count + 1), degree) for degree in _DEGREES}
