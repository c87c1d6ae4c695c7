"""What a session takes."""

import pytest

from tests.scaling.sessions import measure


@pytest.mark.slow
async def test_a_session_takes_one_descriptor() -> None:
    taken = await measure(3)
    assert taken.ends == 6
    assert taken.descriptors == 1.0
