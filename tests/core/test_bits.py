from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.bits import bits_of, each, lowest

numbers = st.sets(st.integers(0, 2000))


@given(numbers)
def test_a_set_comes_back_in_order(some: set[int]) -> None:
    assert list(each(bits_of(some))) == sorted(some)


@given(st.lists(st.integers(0, 100)))
def test_order_and_repetition_do_not_matter(some: list[int]) -> None:
    assert bits_of(some) == sum(1 << number for number in set(some))


@given(numbers.filter(bool))
def test_the_lowest_is_the_least(some: set[int]) -> None:
    assert lowest(bits_of(some)) == min(some)
