from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.devices import Device, Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    await lab.close()


@pytest.fixture
async def ada(lab: Lab) -> Device:
    return await lab.device("ada")
