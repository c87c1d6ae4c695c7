"""What is demanded of a synchronizer, one stretch after the other, without any disk."""

from tests.oracle.judge import judge
from tests.oracle.ledger import Ledger
from tests.oracle.tree import Found, Kind, Tree


def file(token: int, *, executable: bool = False) -> Found:
    return Found(Kind.FILE, token, executable=executable)


def begun(**tokens: int) -> Ledger:
    """A ledger after a rest at which all devices held these tokens."""
    ledger = Ledger()
    ledger.rest([{path: file(token) for path, token in tokens.items()}])
    return ledger


def rules(ledger: Ledger, *trees: Tree) -> list[str]:
    named = {f"dev{number}": tree for number, tree in enumerate(trees)}
    return [one.rule for one in judge(ledger, named)]


def edit(ledger: Ledger, path: str, *, over: int, token: int, device: str = "dev0") -> None:
    ledger.wrote(path, token)
    ledger.ended(device, path, over, by=token)


def edited_apart() -> Ledger:
    """“a”, which all had, was edited to 2 on one device and to 3 on another."""
    ledger = begun(a=1)
    edit(ledger, "a", over=1, token=2)
    edit(ledger, "a", over=1, token=3, device="dev1")
    return ledger


def test_an_edit_that_arrived_everywhere_is_right() -> None:
    ledger = begun(a=1)
    edit(ledger, "a", over=1, token=2)
    assert rules(ledger, {"a": file(2)}, {"a": file(2)}) == []


def test_a_live_token_that_is_nowhere_is_lost() -> None:
    ledger = edited_apart()
    assert rules(ledger, {"a": file(2)}) == ["P1"]


def test_a_conflict_wants_exactly_one_copy() -> None:
    ledger = edited_apart()
    once = {"a": file(2), "a (conflict)": file(3)}
    assert rules(ledger, once, once) == []
    twice = {**once, "a (conflict again)": file(3)}
    assert rules(ledger, twice, twice) == ["P3"]


def test_a_copy_without_a_conflict_is_too_much() -> None:
    ledger = begun(a=1)
    edit(ledger, "a", over=1, token=2)
    edit(ledger, "a", over=2, token=3, device="dev1")
    assert rules(ledger, {"a": file(3), "a (conflict)": file(1)}) == ["P2"]
    assert rules(ledger, {"a": file(3), "a (conflict)": file(3)}) == ["P3"]


def test_superseded_content_at_its_path_is_a_resurrection_and_the_edit_is_lost() -> None:
    ledger = begun(a=1)
    edit(ledger, "a", over=1, token=2)
    assert sorted(rules(ledger, {"a": file(1)})) == ["P1", "P2"]


def test_a_copy_of_what_was_replaced_while_others_settled_its_conflict_is_only_stale() -> None:
    ledger = edited_apart()
    edit(ledger, "a", over=2, token=4)
    tree = {"a": file(4), "a (one)": file(3), "a (two)": file(2)}
    assert rules(ledger, tree) == ["stale"]


def test_a_deleted_file_that_comes_back_is_told_now_and_after_the_next_rest() -> None:
    ledger = begun(a=1)
    ledger.ended("dev0", "a", 1)
    assert rules(ledger, {"a": file(1)}) == ["P2"]
    ledger.rest([{}])
    assert rules(ledger, {"a": file(1)}) == ["P2"]


def test_an_edit_wins_over_a_deletion() -> None:
    ledger = begun(a=1)
    ledger.ended("dev0", "a", 1)
    edit(ledger, "a", over=1, token=2, device="dev1")
    assert rules(ledger, {"a": file(2)}) == []
    assert rules(ledger, {}) == ["P1"]


def test_a_file_that_was_touched_and_deleted_apart_may_stay_or_go() -> None:
    ledger = begun(a=1)
    ledger.ended("dev0", "a", 1)
    ledger.touched("dev1", "a", 1)
    assert rules(ledger, {"a": file(1)}) == []
    assert rules(ledger, {}) == []


def test_a_file_that_one_user_touched_and_then_deleted_has_to_go() -> None:
    ledger = begun(a=1)
    ledger.touched("dev0", "a", 1)
    ledger.ended("dev0", "a", 1)
    assert rules(ledger, {"a": file(1)}) == ["P2"]


def test_what_may_or_may_not_have_been_overwritten_may_be_there_or_not() -> None:
    ledger = begun(a=1)
    ledger.wrote("a", 2)
    ledger.doubt("a", 2)
    ledger.ended("dev0", "a", 1, by=2, sure=False)
    for tree in ({"a": file(1)}, {"a": file(2)}, {"a": file(1), "a (recovered)": file(2)}, {}):
        assert rules(ledger, tree) == []
    assert ledger.unclear == 2


def test_a_file_written_by_two_users_is_not_known_to_who_deletes_one() -> None:
    ledger = begun()
    ledger.wrote("a", 1)
    ledger.wrote_again("a", 1)
    ledger.ended("dev0", "a", 1)
    assert rules(ledger, {"a": file(1)}) == []
    assert rules(ledger, {}) == []


def test_both_names_of_a_file_that_was_renamed_apart_are_wanted() -> None:
    ledger = begun(a=1)
    for device, name in (("dev0", "b"), ("dev1", "c")):
        ledger.wrote(name, 1)
        ledger.ended(device, "a", 1)
    assert rules(ledger, {"b": file(1), "c": file(1)}) == []
    assert rules(ledger, {"b": file(1)}) == ["P1"]


def test_who_deletes_a_conflict_copy_frees_the_synchronizer_from_keeping_the_content() -> None:
    ledger = edited_apart()
    ledger.ended("dev0", "a (conflict)", 3)
    assert rules(ledger, {"a": file(2)}) == []
    assert rules(ledger, {"a": file(2), "a (conflict)": file(3)}) == ["stale"]


def test_a_copy_of_what_won_after_all_is_no_wrong_but_told() -> None:
    ledger = edited_apart()
    ledger.ended("dev1", "a", 3)
    assert rules(ledger, {"a": file(2)}) == []
    assert rules(ledger, {"a": file(2), "a (conflict)": file(2)}) == ["twin"]
    assert rules(ledger, {"a (conflict)": file(2)}) == []


def test_a_copy_of_what_won_after_all_is_so_though_the_other_might_have_won_by_a_touch() -> None:
    ledger = edited_apart()
    ledger.touched("dev2", "a", 1)
    ledger.ended("dev1", "a", 3)
    assert rules(ledger, {"a": file(2), "a (conflict)": file(2)}) == ["twin"]
    tree = {"a": file(2), "a (conflict)": file(2), "a (conflict 2)": file(3)}
    assert rules(ledger, tree) == ["P3"]


def test_a_copy_of_what_won_because_the_other_was_renamed_is_no_wrong_but_told() -> None:
    ledger = edited_apart()
    ledger.wrote("b", 3)
    ledger.ended("dev1", "a", 3)
    tree = {"a": file(2), "a (conflict)": file(2), "b": file(3)}
    assert rules(ledger, tree) == ["twin"]
    assert rules(ledger, {**tree, "a (conflict 2)": file(3)}) == ["P3", "stale"]


def test_a_copy_of_what_won_after_all_over_a_directory_is_no_wrong_but_told() -> None:
    ledger = begun(a=1, b=1)
    edit(ledger, "a", over=1, token=2)
    tree = {"a": file(2), "a (conflict)": file(2), "b": file(1)}
    assert rules(ledger, tree) == ["P3"]
    ledger.made_directory("b")
    assert rules(ledger, tree) == ["P3"]
    ledger.made_directory("a")
    assert rules(ledger, tree) == ["twin"]


def test_a_copy_of_what_was_renamed_away_from_where_a_directory_came_is_no_wrong_but_told() -> None:
    ledger = begun()
    ledger.wrote("a", 1)
    ledger.ended("dev0", "a", 1)
    ledger.wrote("b", 1)
    tree = {"b": file(1), "a (conflict)": file(1)}
    assert rules(ledger, tree) == ["P3"]
    ledger.made_directory("a")
    assert rules(ledger, {"a": Found(Kind.DIRECTORY), **tree}) == ["stale"]


def test_of_what_won_after_all_more_than_one_copy_is_one_too_many() -> None:
    ledger = edited_apart()
    ledger.ended("dev1", "a", 3)
    tree = {"a": file(2), "a (conflict)": file(2), "a (conflict 2)": file(2)}
    assert rules(ledger, tree) == ["twin", "P3"]


def test_a_copy_of_what_was_written_where_something_old_was_deleted_is_one_too_many() -> None:
    ledger = begun(a=1)
    ledger.ended("dev0", "a", 1)
    ledger.wrote("a", 2)
    assert rules(ledger, {"a": file(2), "a (conflict)": file(2)}) == ["P3"]


def test_a_copy_of_what_won_over_what_is_kept_too_is_one_too_many() -> None:
    ledger = edited_apart()
    tree = {"a": file(2), "a (conflict)": file(3), "a (conflict 2)": file(2)}
    assert rules(ledger, tree) == ["P3"]


def test_a_copy_of_what_nobody_competed_with_is_one_too_many() -> None:
    ledger = begun(a=1)
    edit(ledger, "a", over=1, token=2)
    assert rules(ledger, {"a": file(2), "a (conflict)": file(2)}) == ["P3"]


def test_a_file_in_the_way_of_a_directory_may_have_a_copy() -> None:
    ledger = begun()
    ledger.wrote("a", 1)
    ledger.made_directory("a")
    ledger.wrote("a/b", 2)
    tree = {"a": Found(Kind.DIRECTORY), "a/b": file(2), "a (conflict)": file(1)}
    assert rules(ledger, tree) == []


def test_a_file_that_was_just_coming_may_follow_a_renamed_directory() -> None:
    ledger = begun(**{"d/a": 1})
    ledger.wrote("d/b", 2)
    ledger.moves.append(("d", "e"))
    ledger.wrote("e/a", 1)
    ledger.ended("dev0", "d/a", 1)
    assert rules(ledger, {"e/a": file(1), "e/b": file(2)}) == []


def test_what_was_just_being_overwritten_may_be_so_in_a_renamed_directory() -> None:
    ledger = begun(**{"d/a": 1, "d/b": 2})
    edit(ledger, "d/a", over=1, token=3)
    # On a device where that edit is just coming in.
    ledger.moves.append(("d", "e"))
    for path, token in (("a", 1), ("b", 2)):
        ledger.wrote(f"e/{path}", token)
        ledger.ended("dev1", f"d/{path}", token)
    assert rules(ledger, {"e/a": file(3), "e/b": file(2)}) == []
    assert rules(ledger, {"e/a": file(3), "e/b": file(3)}) == ["P1", "P5"]
    assert rules(ledger, {"e/a": file(2), "e/b": file(2)}) == ["P1", "P1", "P5"]


def test_a_token_at_a_path_of_another_one_is_told() -> None:
    ledger = begun(a=1, b=2)
    assert rules(ledger, {"a": file(1), "b": file(1)}) == ["P1", "P5"]


def test_devices_that_differ_in_an_execute_bit_differ() -> None:
    ledger = begun(a=1)
    assert rules(ledger, {"a": file(1)}, {"a": file(1, executable=True)}) == ["P11"]


def test_of_what_only_some_devices_hold_at_a_rest_nothing_is_demanded_later() -> None:
    ledger = Ledger()
    ledger.rest([{"a": file(1)}, {}])
    assert rules(ledger, {"a": file(1)}, {"a": file(1)}) == []
    assert rules(ledger, {}, {}) == []


def test_a_violation_tells_what_happened_to_its_tokens() -> None:
    ledger = begun(a=1, b=5)
    ledger.note("dev0", "saves “a” with token 2 over 1", ["a"], [1, 2])
    ledger.note("dev0", "deletes “b” with token 5", ["b"], [5])
    ledger.ended("dev0", "b", 5)
    ledger.note("-", "dev1 is killed")
    edit(ledger, "a", over=1, token=2)
    (lost,) = judge(ledger, {"dev0": {}})[:1]
    told = "\n".join(lost.story)
    assert "saves “a” with token 2" in told
    assert "dev1 is killed" in told
    assert "deletes" not in told
