"""The world as the engine sees it: the short list of interfaces that adapters satisfy.

Owned by the engine, their only user. `Disk` blocks and is called in worker threads; everything
that is `async` never blocks the event loop.
"""

from p2psync.ports.disk import (
    Action,
    Disk,
    FileChangedError,
    Hashed,
    Outcome,
    Problem,
    Result,
    RootUnavailableError,
    Seen,
    Step,
    Walk,
    Watcher,
    Whole,
)
from p2psync.ports.index import (
    Counts,
    Cursor,
    Damage,
    Finding,
    FolderIndex,
    Held,
    Offer,
    Place,
    Row,
    Scrub,
    Wanted,
)
from p2psync.ports.world import (
    Address,
    AddressStore,
    Clock,
    Dialer,
    DialRefusedError,
    Link,
    Randomness,
    RosterStore,
)

__all__ = [
    "Action",
    "Address",
    "AddressStore",
    "Clock",
    "Counts",
    "Cursor",
    "Damage",
    "DialRefusedError",
    "Dialer",
    "Disk",
    "FileChangedError",
    "Finding",
    "FolderIndex",
    "Hashed",
    "Held",
    "Link",
    "Offer",
    "Outcome",
    "Place",
    "Problem",
    "Randomness",
    "Result",
    "RootUnavailableError",
    "RosterStore",
    "Row",
    "Scrub",
    "Seen",
    "Step",
    "Walk",
    "Wanted",
    "Watcher",
    "Whole",
]
