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
)
from p2psync.ports.index import (
    Counts,
    Cursor,
    FolderIndex,
    Held,
    Offer,
    Place,
    Row,
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
    "DialRefusedError",
    "Dialer",
    "Disk",
    "FileChangedError",
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
    "Seen",
    "Step",
    "Walk",
    "Wanted",
    "Watcher",
]
