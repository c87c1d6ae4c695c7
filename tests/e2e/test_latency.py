"""The one bound in seconds that people feel: an edit here is there at once."""

import statistics
import time

from tests.e2e.harness import Lab, converge, everywhere

EDITS = 20
MEDIAN_S = 0.3


def test_an_edit_is_visible_on_the_peer_within_a_third_of_a_second(lab: Lab) -> None:
    devices = lab.group("ada", "bob")
    for device in devices:
        for number in range(50):
            device.write(f"of {device.name}/{number}.txt", f"{number}\n" * 50)
    converge(devices)

    took = []
    for number in range(EDITS):
        author, reader = devices if number % 2 else reversed(devices)
        path = f"of {author.name}/{number}.txt"
        content = f"edit {number}\n".encode() * 60
        began = time.monotonic()
        author.write(path, content)
        everywhere([reader], path, content, every=0.002)
        took.append(time.monotonic() - began)

    shown = ", ".join(f"{seconds:.3f}" for seconds in sorted(took))
    assert statistics.median(took) < MEDIAN_S, f"seconds: {shown}"
