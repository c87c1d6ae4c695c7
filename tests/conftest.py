"""What every test gets: an environment of its own, no threads left over, and in CI no skips."""

import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

THREADS = pytest.StashKey[set[threading.Thread]]()

LEAVING_S = 5.0
"""How long a thread that was told to end may take."""

# The same examples in every run; `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the person who runs the tests: no settings, no home, no repository, no colours.

    HOME names a directory that is not there.
    """
    for name in list(os.environ):
        if name.startswith(("P2PSYNC_", "XDG_", "GIT_")) or name in {"FORCE_COLOR", "COLUMNS"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "nobodys-home"))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """An empty state directory, readable by its owner only."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    item.stash[THREADS] = set(threading.enumerate())
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Fail a test that leaves a thread behind, after its fixtures are gone."""
    result = yield
    deadline = time.monotonic() + LEAVING_S
    left = []
    before = item.stash[THREADS]
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            left.append(thread.name)
    if left:
        pytest.fail(f"threads left running: {', '.join(sorted(left))}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI every test can run, so that a skipped one is a broken set-up and not a choice."""
    if report.skipped and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}: in CI nothing may be skipped"
