"""When a system rests: it says so, and the trees are the same."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.oracle.tree import IsPrivate, read_tree, same

_LOOK_EVERY_S = 0.1
_LOOKS = 2


def settled(
    roots: Sequence[Path],
    is_private: IsPrivate,
    unrest: Callable[[], str],
    *,
    within: float,
    exact_times: bool = False,
) -> str:
    """Wait until the trees are the same and nobody says otherwise, in two looks one after the
    other. Returns what was in the way in the end."""
    deadline = time.monotonic() + within
    calm = 0
    while True:
        why = unrest()
        if not why:
            trees = [read_tree(root, is_private) for root in roots]
            if not same(trees):
                why = "it says that it rests, and the trees differ"
            elif exact_times and any(
                found.mtime_ns != trees[0][path].mtime_ns
                for tree in trees
                for path, found in tree.items()
            ):
                why = "it says that it rests, and times of files differ"
        calm = 0 if why else calm + 1
        if calm >= _LOOKS or time.monotonic() >= deadline:
            return why
        time.sleep(_LOOK_EVERY_S)
