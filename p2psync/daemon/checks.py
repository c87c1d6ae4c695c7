"""What `doctor` asks of a running daemon, beside what the command line looks at by itself."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2psync.config import format_address

Json = dict[str, Any]

_LEAST_FREE = 64 * 1024 * 1024


def checks(
    home: Path, listen: Sequence[tuple[str, int]], discovery_problems: Mapping[str, str]
) -> list[Json]:
    """Blocking. Each with `name`, `ok`, `detail` and, where it failed, `next_step`."""
    found = [_listening(listen), _free_space(home)]
    found += [
        {"name": source, "ok": False, "detail": sentence, "next_step": None}
        for source, sentence in sorted(discovery_problems.items())
    ]
    return found


def _listening(listen: Sequence[tuple[str, int]]) -> Json:
    shown = ", ".join(map(format_address, listen))
    return {
        "name": "addresses",
        "ok": bool(shown),
        "detail": f"others can reach this device at {shown}" if shown else "no network is up",
        "next_step": None if shown else "Connect this device to a network.",
    }


def _free_space(home: Path) -> Json:
    facts = os.statvfs(home)
    free = facts.f_bavail * facts.f_frsize
    ok = free >= _LEAST_FREE
    return {
        "name": "space for the index",
        "ok": ok,
        "detail": f"{free // 2**20} MiB are free on the disk of {home}",
        "next_step": None if ok else "Free some space: changes cannot be recorded without it.",
    }
