"""How long to wait before the next try: longer after each failure, never in step with others."""

FIRST_S = 1.0
LONGEST_S = 60.0


def pause(failures: int, chance: float) -> float:
    """Seconds after `failures` (1 or more) in a row; `chance` is a random number in [0, 1).

    Doubles from FIRST_S to LONGEST_S, of which the last half is left to chance ("equal jitter",
    Brooker, 2015).
    """
    whole = min(FIRST_S * 2.0 ** min(failures - 1, 16), LONGEST_S)
    return whole / 2 + whole / 2 * chance
