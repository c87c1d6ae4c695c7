"""What a daemon does not load before it is needed: each costs every start."""

import os
import subprocess
import sys

NEEDED_LATER = {"markdown_it", "pydantic", "rich", "spake2", "typer", "zeroconf"}


def test_a_daemon_starts_without_what_it_may_never_need() -> None:
    script = (
        f"import sys, p2psync.daemon; print(sorted({NEEDED_LATER!r} & set(sys.modules)));"
        "import spake2; print('spake2' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        text=True,
        timeout=20,
    )

    assert done.stdout == "[]\nTrue\n"
