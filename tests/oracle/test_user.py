"""What users do to the disk, and that the ledger knows what they overwrote."""

from pathlib import Path

import pytest

from tests.oracle.actions import Abilities, Chooser
from tests.oracle.ledger import Fate, Ledger
from tests.oracle.sampler import Sampler
from tests.oracle.tokens import file_content, token_of
from tests.oracle.tree import Kind, look, same
from tests.oracle.user import Missed, User


@pytest.fixture
def user(tmp_path: Path) -> User:
    for name in ("root", "desk"):
        (tmp_path / name).mkdir()
    return User("dev0", tmp_path / "root", tmp_path / "desk", Ledger())


def fate(user: User, path: str, token: int) -> Fate:
    return user.ledger.places[token, path].fate


def test_only_a_whole_content_has_a_token() -> None:
    content = file_content(7, 300)
    assert token_of(content) == 7
    assert token_of(content[:-1]) is None
    assert token_of(content[:100] + file_content(8, 300)[100:]) is None
    assert token_of(b"") is None


@pytest.mark.parametrize("plain", [False, True])
def test_a_save_ends_what_was_there(user: User, *, plain: bool) -> None:
    first = user.create("a", 100, plain=plain)
    user.save("a", 200, plain=plain)
    second = look(user.root / "a").token
    assert second is not None
    assert fate(user, "a", first) is Fate.GONE
    assert fate(user, "a", second) is Fate.LIVE
    assert [path.name for path in user.root.iterdir()] == ["a"]


def test_what_a_save_ends_is_what_it_took_out_and_not_what_was_seen_before(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = user.create("a", 100)
    other = user.ledger.new_token()
    user.ledger.wrote("a", other)
    staging = user._stage_file

    def meanwhile(token: int, size: int, *, executable: bool = False) -> str:
        (user.root / "a").write_bytes(file_content(other, 64))
        return staging(token, size, executable=executable)

    monkeypatch.setattr(User, "_stage_file", lambda _, *words, **named: meanwhile(*words, **named))
    user.save("a", 100)
    assert fate(user, "a", other) is Fate.GONE
    assert fate(user, "a", first) is Fate.LIVE


def test_an_edit_in_place_into_a_file_that_is_replaced_just_then_is_unclear(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = user.create("a", 100)
    monkeypatch.setattr(User, "_is_inode", lambda *_: False)
    user.edit_in_place("a")
    assert fate(user, "a", first) is Fate.UNCLEAR
    assert fate(user, "a", first + 1) is Fate.UNCLEAR


def test_a_directory_that_is_deleted_takes_all_in_it_along(user: User) -> None:
    user.make_directory("d")
    tokens = [user.create(f"d/{name}", 60) for name in "ab"]
    user.delete("d")
    assert [fate(user, f"d/{name}", token) for name, token in zip("ab", tokens, strict=True)] == [
        Fate.GONE,
        Fate.GONE,
    ]
    assert not (user.root / "d").exists()


def test_a_renamed_directory_carries_its_tokens(user: User) -> None:
    user.make_directory("d")
    token = user.create("d/a", 60)
    user.rename_directory("d", "e")
    assert fate(user, "d/a", token) is Fate.GONE
    assert fate(user, "e/a", token) is Fate.LIVE


def test_a_file_becomes_a_directory_and_a_file_again(user: User) -> None:
    first = user.create("a", 60)
    user.to_directory("a", "inner", 60)
    inner = look(user.root / "a/inner").token
    assert inner is not None
    assert fate(user, "a", first) is Fate.GONE
    user.to_file("a", 60)
    assert fate(user, "a/inner", inner) is Fate.GONE
    assert look(user.root / "a").kind is Kind.FILE


def test_what_cannot_be_done_is_not_told(user: User) -> None:
    with pytest.raises(Missed):
        user.create("nowhere/a", 60)
    with pytest.raises(Missed):
        user.delete("a")
    assert user.ledger.places == {}
    assert user.ledger.events == []


def test_what_became_a_directory_just_then_cannot_be_touched(user: User) -> None:
    user.make_directory("was a file")
    for mode in (False, True):
        with pytest.raises(Missed):
            user.touch("was a file", mode=mode)
    with pytest.raises(Missed):
        user.edit_in_place("was a file")


def test_the_same_seed_makes_the_same_changes(tmp_path: Path) -> None:
    trees = []
    for run in range(2):
        root, desk = tmp_path / f"root{run}", tmp_path / f"desk{run}"
        root.mkdir()
        desk.mkdir()
        one = User("dev0", root, desk, Ledger())
        chooser = Chooser(3, Abilities(), biggest=50_000)
        chooser.begin(one, contended=False)
        for _ in range(60):
            chooser.act(one, plain=True)
        trees.append(one.tree())
    assert same(trees)


def test_the_sampler_tells_parts_and_mixes_and_foreign_contents(user: User) -> None:
    token = user.create("a", 600)
    other = user.create("b", 600)
    sampler = Sampler({"dev0": user.root})
    sampler.look("dev0")
    assert sampler.verdict(user.ledger) == []
    (user.root / "a").write_bytes(file_content(token, 600)[:100])
    sampler.look("dev0")
    (user.root / "a").write_bytes(file_content(other, 600))
    sampler.look("dev0")
    found = sorted(one.text for one in sampler.verdict(user.ledger))
    assert found == [
        f"for a moment it held the first 100 of 600 bytes of token {token}",
        f"for a moment it held token {other}, which nobody ever wrote there",
    ]
