"""Each part that is broken on purpose is noticed by the tests that are there for it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.broken import BROKEN

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 60.0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_is_broken_is_noticed(name: str) -> None:
    tests = BROKEN[name].noticed_by
    command = [sys.executable, "-m", "pytest", "-p", "tests.mutations.broken", "--broken", name]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--tb=line", "-s", *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    noticed = re.findall(r"^noticed by (\S+)$", done.stdout, re.MULTILINE)
    assert sorted(noticed) == sorted(tests), done.stdout + done.stderr
    assert re.search(rf"^=+ {len(tests)} failed in ", done.stdout, re.MULTILINE), done.stdout
