"""The daemon: builds every part, hands each what it needs, and ends them in order."""

from p2psync.daemon.serve import serve

__all__ = ["serve"]
