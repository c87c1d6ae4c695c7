"""Sets of small numbers, each as the bits of one integer: joined and compared in one step."""

from collections.abc import Iterable, Iterator


def bits_of(numbers: Iterable[int]) -> int:
    """The set of these. Takes one pass, where setting one bit after another of a large integer
    would copy it each time."""
    packed = bytearray()
    for number in numbers:
        at = number >> 3
        if at >= len(packed):
            packed.extend(bytes(at + 1 - len(packed)))
        packed[at] |= 1 << (number & 7)
    return int.from_bytes(packed, "little")


def lowest(bits: int) -> int:
    """The least of the numbers, of which there is at least one."""
    return (bits & -bits).bit_length() - 1


def each(bits: int) -> Iterator[int]:
    """The numbers in order. Good for the first few of many."""
    base = 0
    while bits:
        step = lowest(bits)
        base += step
        yield base
        bits >>= step + 1
        base += 1
