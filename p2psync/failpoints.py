"""Named points at which a test can end the daemon as a power cut would.

`reach` does nothing until a hook is installed, which `daemon/power_cut.py` does when a test asks
for it. A name says what has just been done, or what is about to be.
"""

from collections.abc import Callable

NAMES = (
    # Files being put together.
    "staging.opened",
    "staging.piece-written",
    "staging.piece-copied",
    # A group of changes becoming visible.
    "commit.begun",
    "ready.before-sync",
    "ready.done",
    "commit.before-put",
    "commit.after-put",
    "commit.before-move",
    "commit.after-move",
    "commit.before-swap",
    "commit.after-swap",
    "commit.after-displacing",
    "commit.after-symlink",
    "commit.after-making-directory",
    "commit.after-removing-directory",
    "commit.after-metadata",
    "commit.before-directory-sync",
    "commit.after-directory-sync",
    "trash.before-keeping",
    "trash.after-keeping",
    "trash.before-recovering",
    # The index of a folder.
    "index.before-recording",
    "index.after-recording",
    "index.before-receiving",
    "index.after-receiving",
    "index.before-renewing",
    "index.after-renewing",
    "database.created",
    "database.set-aside",
    # What peers are told.
    "exchange.before-sending",
    "exchange.after-sending",
    "exchange.before-acknowledging",
    "exchange.after-acknowledging",
    # Who belongs to the group.
    "membership.before-saving",
    "membership.after-saving",
    # Folders coming and going.
    "adopt.before-marking",
    "folder.marked",
    "folder.saved",
    "folder.before-forgetting",
    "folder.forgotten",
    "folder.released",
    # This device's identity.
    "identity.before-renaming",
    "identity.key-written",
    "identity.certificate-written",
)


def _nothing(_name: str) -> None:
    pass


_hook: Callable[[str], None] = _nothing


def reach(name: str) -> None:
    _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with each name that is reached, from whatever thread; None: no longer."""
    global _hook
    _hook = hook or _nothing
