"""What properties are tried on."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings


def examples(times: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """So many times the examples that the profile asks for, so that one that goes deep does."""
    return settings(max_examples=max(1, round(settings().max_examples * times)))
