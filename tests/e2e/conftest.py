"""What every end-to-end test gets: a lab, a time limit, and the daemons' logs when it fails."""

import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.e2e.harness import Lab, assert_sound_logs
from tests.e2e.site import Site, hostile_site

DEFAULT_LIMIT_S = 60
_LOG_TAIL = 6_000


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "limit(seconds): how long this end-to-end test may take")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.name != "test_harness.py":
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash.setdefault(_FAILED, False)
    if report.failed:
        item.stash[_FAILED] = True
        lab = getattr(item, "funcargs", {}).get("lab")
        if isinstance(lab, Lab):
            for name, text in lab.logs().items():
                report.sections.append((f"log of {name}", text[-_LOG_TAIL:]))
    return report


_FAILED = pytest.StashKey[bool]()


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs: `limit(seconds)`, or a minute."""
    marker = request.node.get_closest_marker("limit")
    seconds = int(marker.args[0]) if marker else DEFAULT_LIMIT_S

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than {seconds} s")

    before: Any = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Devices for one test. A daemon that logged a traceback fails the test, whatever it showed."""
    lab = Lab(tmp_path)
    try:
        yield lab
    finally:
        signal.alarm(0)
        lab.close()
        logs = dict(lab.logs())
        shutil.rmtree(tmp_path, ignore_errors=True)
    if not request.node.stash.get(_FAILED, False):
        assert_sound_logs(logs)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hostile_site(tmp_path_factory.mktemp("hostile")) as site:
        yield site


@pytest.fixture
def site(group: Site) -> Iterator[Site]:
    """Shared by the tests of a file: what one of them does to it must not trouble the next."""
    with group.mallory:
        yield group
