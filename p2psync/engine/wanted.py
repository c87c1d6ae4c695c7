"""From the index's words to those of decisions."""

from p2psync.core.decide import Decision, decide
from p2psync.ports import Wanted


def decide_wanted(wanted: Wanted) -> Decision:
    held = wanted.held.entry if wanted.held is not None else None
    return decide(wanted.path, held, [(offer.peer, offer.entry) for offer in wanted.offers])
