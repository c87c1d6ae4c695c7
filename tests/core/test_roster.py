"""Membership, with keys that are played: whoever knows a certificate could sign for it here."""

import hashlib
import hmac
import itertools
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from p2psync.core.ids import DeviceID
from p2psync.core.roster import OwnDevice, Roster
from p2psync.core.statements import (
    MAX_STATEMENTS,
    MAX_TERM,
    Add,
    Remove,
    Rename,
    Signed,
    Statement,
    decode_statements,
)
from p2psync.errors import NotFoundError, RefusedError, UsageError
from tests.support.strategies import examples


def _device_of(certificate: bytes) -> DeviceID:
    if not certificate.startswith(b"certificate of "):
        raise ValueError("it is not a certificate")
    return DeviceID(hashlib.sha256(certificate).digest())


def _verify(certificate: bytes, signature: bytes, data: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(certificate, data, "sha256"), signature)


def _own(name: str) -> OwnDevice:
    certificate = b"certificate of " + name.encode()
    return OwnDevice(
        device=_device_of(certificate),
        certificate=certificate,
        sign=lambda data: hmac.digest(certificate, data, "sha256"),
        verify=_verify,
        device_of=_device_of,
    )


_PROPERTY = examples(0.15)

A, B, C, D, E = DEVICES = [_own(name) for name in "abcde"]
NAMES = {own.device: name for own, name in zip(DEVICES, "abcde", strict=True)}
STRANGER = _own("stranger")


def _by(author: OwnDevice, statement: Statement) -> Signed:
    """Signed without asking whether it makes sense, as a hostile device would."""
    encoded = msgspec.msgpack.encode(statement)
    return Signed(encoded, author.sign(b"p2psync roster statement 1\0" + encoded))


def _add(author: OwnDevice, device: OwnDevice, name: str = "name", *, term: int = 0) -> Signed:
    return _by(author, Add(author.device, device.device, device.certificate, name, term))


def _remove(
    author: OwnDevice, device: OwnDevice, *keeps: OwnDevice, term: int = 0, upto: int = 0
) -> Signed:
    kept = tuple(sorted((own.device, upto) for own in keeps))
    return _by(author, Remove(author.device, device.device, kept, term))


def _pair(left: OwnDevice, right: OwnDevice) -> list[Signed]:
    return [_add(left, right), _add(right, left)]


def _star(centre: OwnDevice, *others: OwnDevice) -> list[Signed]:
    return [signed for other in others for signed in _pair(centre, other)]


def _roster(statements: Iterable[Signed], own: OwnDevice = A) -> Roster:
    return Roster().merge(statements, own)


def _others(roster: Roster, own: OwnDevice = A) -> str:
    return "".join(sorted(NAMES.get(device, "?") for device in roster.members(own.device)))


# --- additions ----------------------------------------------------------------------------------


def test_a_device_without_statements_is_alone() -> None:
    assert _others(Roster()) == ""


def test_pairing_with_one_member_introduces_all() -> None:
    chain = [*_pair(A, B), *_pair(B, C), *_pair(C, D)]
    for own, others in [(A, "bcd"), (B, "acd"), (C, "abd"), (D, "abc")]:
        assert _others(_roster(chain, own), own) == others


def test_a_member_has_the_certificate_and_name_it_was_added_with() -> None:
    roster = Roster().add(A, certificate=B.certificate, name="Büro-Rechner")
    member = roster.members(A.device)[B.device]
    assert (member.device, member.certificate, member.name) == (
        B.device,
        B.certificate,
        "Büro-Rechner",
    )


def test_what_a_device_signed_of_itself_outweighs_what_others_say() -> None:
    roster = _roster([_add(A, B, "a's idea"), _add(B, B, "own idea"), _add(B, C), _add(C, B, "c")])
    assert roster.members(A.device)[B.device].name == "own idea"


def test_adding_twice_changes_nothing() -> None:
    roster = Roster().add(A, certificate=B.certificate, name="b")
    assert roster.add(A, certificate=B.certificate, name="b") == roster


@pytest.mark.parametrize("name", ["", " b", "b ", "a/b", "a\nb", "a\x1b[31m", "\u202eb", "x" * 65])
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="printable"):
        Roster().add(A, certificate=B.certificate, name=name)
    assert _others(_roster([_add(A, B, name)])) == ""


def test_bytes_that_are_no_certificate_are_refused() -> None:
    with pytest.raises(UsageError, match="no valid certificate"):
        Roster().add(A, certificate=b"junk", name="b")


# --- what does not count ------------------------------------------------------------------------


def test_a_strangers_statements_change_nothing() -> None:
    roster = _roster(_star(A, B, C))
    told = [
        _add(STRANGER, STRANGER),
        _add(STRANGER, D),
        _add(STRANGER, A),
        _remove(STRANGER, B),
        _by(STRANGER, Rename(STRANGER.device, B.device, "mine", 9)),
    ]
    assert roster.merge(told, A) == roster


def test_a_statement_signed_by_another_than_its_issuer_is_ignored() -> None:
    roster = _roster(_star(A, B, C))
    for forged in [
        _by(B, Remove(A.device, C.device, ())),
        _by(STRANGER, Remove(A.device, C.device, ())),
        _by(B, Add(A.device, D.device, D.certificate, "d")),
    ]:
        assert roster.merge([forged], A) == roster


def test_a_signature_without_the_domain_prefix_is_ignored() -> None:
    encoded = msgspec.msgpack.encode(Remove(A.device, B.device, ()))
    roster = _roster(_pair(A, B))
    assert roster.merge([Signed(encoded, A.sign(encoded))], A) == roster


def test_a_certificate_of_another_device_is_ignored() -> None:
    lie = _by(B, Add(B.device, C.device, D.certificate, "c"))
    assert _others(_roster([*_pair(A, B), lie])) == "b"


def test_encodings_other_than_the_canonical_are_ignored() -> None:
    long_form = msgspec.msgpack.encode(Remove(A.device, B.device, ())).replace(
        b"\xc4\x20" + B.device, b"\xc5\x00\x20" + B.device
    )
    pairs = sorted([(C.device, 0), (D.device, 0)])
    unsorted = msgspec.msgpack.encode(Remove(A.device, B.device, tuple(reversed(pairs))))
    twice = msgspec.msgpack.encode(Remove(A.device, B.device, ((C.device, 0), (C.device, 1))))
    without_term = msgspec.msgpack.encode(["remove", A.device, B.device, []])
    roster = _roster(_pair(A, B))
    for encoded in [
        *[long_form, unsorted, twice, without_term],
        *[b"", b"\x90", b"\x93\xa3add", b"\xff" * 9],
    ]:
        signed = Signed(encoded, A.sign(b"p2psync roster statement 1\0" + encoded))
        assert roster.merge([signed], A) == roster


@pytest.mark.parametrize("term", [-1, MAX_TERM + 1, 1 << 64, 0.5, "1", None])
def test_terms_that_are_no_terms_are_ignored(term: object) -> None:
    roster = _roster(_pair(A, B))
    for statement in [
        ["add", A.device, C.device, C.certificate, "c", term],
        ["remove", A.device, B.device, [], term],
        ["remove", A.device, B.device, [[C.device, term]], 0],
    ]:
        try:
            encoded = msgspec.msgpack.encode(statement)
        except OverflowError:
            continue
        signed = Signed(encoded, A.sign(b"p2psync roster statement 1\0" + encoded))
        assert roster.merge([signed], A) == roster


def test_two_signatures_of_one_statement_are_kept_as_one() -> None:
    any_signature = OwnDevice(
        device=A.device,
        certificate=A.certificate,
        sign=A.sign,
        verify=lambda _certificate, _signature, _data: True,
        device_of=_device_of,
    )
    first = _add(A, B)
    second = msgspec.structs.replace(first, signature=bytes(32))
    both = {
        Roster().merge(order, any_signature).encode()
        for order in itertools.permutations([first, second])
    }
    assert len(both) == 1
    assert len(Roster().merge([first, second], any_signature).statements) == 1


def test_held_statements_are_not_verified_again() -> None:
    roster = _roster(_star(A, B, C))

    def never(_certificate: bytes, _signature: bytes, _data: bytes) -> bool:
        raise AssertionError("verified again")

    strict = OwnDevice(
        device=A.device,
        certificate=A.certificate,
        sign=A.sign,
        verify=never,
        device_of=_device_of,
    )
    assert roster.merge(roster.statements, strict) == roster


# --- removals -----------------------------------------------------------------------------------


def test_a_removed_device_is_out_for_everybody() -> None:
    roster = _roster(_star(A, B, C)).remove(A, B.device)
    assert _others(roster) == "c"
    assert roster.view(C.device).removed == {B.device}
    assert _others(roster, C) == "a"


def test_a_removal_wins_over_additions_of_the_same_device() -> None:
    removed = _roster(_star(A, B, C)).remove(A, B.device)
    again = removed.merge([_add(C, B), _add(B, B), _add(A, B, "back")], A)
    assert _others(again) == "c"


def test_whom_the_removed_device_added_stays() -> None:
    roster = _roster([*_pair(A, B), *_pair(B, C), *_pair(C, D)]).remove(A, B.device)
    assert _others(roster) == "cd"
    assert _others(roster, D) == "ac"


def test_additions_by_a_removed_device_come_too_late() -> None:
    roster = _roster(_star(A, B, C)).remove(A, B.device)
    later = roster.merge([_add(B, D), _add(D, E), _add(D, A), _remove(D, C)], A)
    assert _others(later) == "c"


def test_an_addition_that_one_of_two_removers_did_not_keep_is_void() -> None:
    group = [*_star(A, B, C), _add(B, D), _add(B, E)]
    roster = _roster([*group, _remove(A, B, A, D, E), _remove(C, B, A, D)])
    assert _others(roster) == "cd"


def test_a_removed_device_removes_nobody() -> None:
    roster = _roster(_star(A, B, C, D)).remove(A, B.device)
    assert _others(roster.merge([_remove(B, C), _remove(B, D)], A)) == "cd"


def test_removals_by_a_device_that_is_removed_later_stand() -> None:
    roster = _roster(_star(A, B, C, D)).remove(B, D.device).remove(A, B.device)
    assert _others(roster) == "c"
    assert roster.view(A.device).removed == {B.device, D.device}


def test_kept_additions_stay_kept_when_the_remover_is_removed() -> None:
    group = [*_star(A, B, C), *_pair(D, E), *_pair(B, D)]
    roster = _roster(group).remove(B, D.device).remove(A, B.device)
    assert _others(roster) == "ce"


def test_a_device_that_would_come_back_is_told() -> None:
    """C removed D; A removes C without having heard of that."""
    group = _roster(_star(A, B, C, D))
    at_b = group.remove(C, D.device)
    at_a = group.remove(A, C.device)
    merged = at_b.merge(at_a.statements, B)
    returned = merged.view(B.device).returned_since(at_b.view(B.device))
    assert returned == {D.device}
    mended = merged.remove(B, D.device)
    assert _others(mended, A) == "b"


def test_two_devices_that_remove_each_other_are_both_out() -> None:
    roster = _roster(_star(C, A, B, D), C).merge([_remove(A, B, C), _remove(B, A, C)], C)
    assert _others(roster, C) == "d"
    assert _others(roster, D) == "c"


def test_removals_in_a_circle_all_count() -> None:
    circle = [_remove(A, B), _remove(B, C), _remove(C, A)]
    assert _others(_roster([*_star(D, A, B, C, E), *circle], D), D) == "e"


def test_a_quarrel_lets_nobody_back_in() -> None:
    """B removed C; the thief of A, whom B removed too, disputes B's word."""
    roster = _roster([*_star(D, A, B, C), _remove(B, C), _remove(B, A), _remove(A, B)], D)
    assert _others(roster, D) == ""


def test_a_device_learns_that_it_was_removed_and_by_whom() -> None:
    view = _roster([*_star(A, B, C), _remove(B, A, B, C)], A).view(A.device)
    assert view.removed_by == {B.device}
    assert view.removed == frozenset()


def test_a_device_learns_that_it_was_removed_in_a_quarrel() -> None:
    roster = _roster([*_star(D, A, B), _remove(A, B), _remove(B, A), _remove(A, D)], D)
    assert roster.view(D.device).removed_by == {A.device}
    assert _others(roster, D) == ""


def test_a_stranger_or_a_removed_device_does_not_count_as_remover() -> None:
    roster = _roster(_star(A, B, C)).remove(A, B.device).merge([_remove(B, A)], A)
    assert roster.view(C.device).removed == {A.device, B.device}
    assert roster.view(A.device).removed_by == frozenset()


def test_a_device_does_not_remove_itself_or_a_stranger() -> None:
    roster = _roster(_pair(A, B))
    with pytest.raises(UsageError, match="another device"):
        roster.remove(A, A.device)
    with pytest.raises(NotFoundError, match="device list"):
        roster.remove(A, STRANGER.device)


def test_removing_twice_changes_nothing() -> None:
    roster = _roster(_star(A, B, C)).remove(A, B.device)
    assert roster.remove(A, B.device) == roster
    assert roster.remove(C, B.device) == roster


# --- letting in again ---------------------------------------------------------------------------


def test_a_removed_device_that_is_paired_again_is_a_member_for_everybody() -> None:
    removed = _roster(_star(A, B, C)).remove(A, B.device)
    for own in (A, C):
        again = removed.add(own, certificate=B.certificate, name="back")
        assert [_others(again, each) for each in (A, B, C)] == ["bc", "ac", "ab"]
        assert again.view(A.device).removed == again.view(B.device).removed_by == frozenset()
        assert again.members(C.device)[B.device].name == "back"


def test_who_was_let_in_again_can_be_removed_and_let_in_again() -> None:
    roster = _roster(_star(A, B, C))
    for own in (A, C, A):
        roster = roster.remove(own, B.device)
        assert (_others(roster), _others(roster, C)) == ("c", "a")
        assert roster.view(B.device).removed_by == {own.device}
        roster = roster.add(own, certificate=B.certificate, name="b")
        assert (_others(roster), _others(roster, C)) == ("bc", "ab")


def test_who_was_let_in_again_adds_and_removes_like_others() -> None:
    roster = _roster(_star(A, B, C, D)).remove(A, B.device)
    roster = roster.add(A, certificate=B.certificate, name="b")
    roster = roster.add(B, certificate=E.certificate, name="e").remove(B, D.device)
    assert _others(roster, C) == "abe"


def test_two_devices_that_let_in_again_at_once_agree() -> None:
    removed = _roster(_star(A, B, C)).remove(A, B.device)
    at_a = removed.add(A, certificate=B.certificate, name="by a")
    at_c = removed.add(C, certificate=B.certificate, name="by c")
    merged = at_a.merge(at_c.statements, A)
    assert merged == at_c.merge(at_a.statements, C)
    assert merged.members(A.device)[B.device] == merged.members(C.device)[B.device]
    assert _others(merged.remove(A, B.device), C) == "a"


def test_a_removal_beats_the_letting_in_again_that_did_not_know_of_it() -> None:
    removed = _roster(_star(A, B, C, D)).remove(A, B.device)
    at_d = removed.add(D, certificate=B.certificate, name="b").remove(D, B.device)
    at_c = removed.add(C, certificate=B.certificate, name="b")
    assert _others(at_c, A) == "bcd"
    assert _others(at_c.merge(at_d.statements, C), A) == "cd"


def test_a_removal_that_did_not_know_of_the_first_does_not_outlast_letting_in_again() -> None:
    group = _roster(_star(A, B, C))
    again = group.remove(A, B.device).add(A, certificate=B.certificate, name="b")
    merged = group.remove(C, B.device).merge(again.statements, C)
    assert _others(merged, C) == "ab"


def test_a_thief_does_not_let_itself_in_again() -> None:
    """It signed ahead, at every term it liked, and its accomplice E was removed with it."""
    group = [*_star(A, B, C), *_pair(B, E)]
    removed = _roster(group).remove(A, B.device).remove(A, E.device)
    ahead = [
        signed
        for term in (0, 1, 2, MAX_TERM)
        for signed in [_add(B, B, term=term), _add(B, E, term=term), _add(E, B, term=term)]
    ]
    assert _others(removed.merge(ahead, A)) == "c"
    assert _others(removed.merge([*ahead, _remove(B, C), _remove(E, C)], A)) == "c"


def test_a_removal_overrides_additions_that_do_not_count_yet() -> None:
    """C, whom B removed, added E ahead: else E's removal of B would count because it counts."""
    roster = _roster([*_star(A, B, C, D, E), _add(C, E, term=1), _remove(B, C)])
    assert _others(roster.remove(A, E.device).merge([_remove(E, B)], A)) == "bd"


def test_a_kept_addition_is_kept_as_it_was_and_no_later_one_with_it() -> None:
    """A removes D, then B, whose old addition of D leads to E and so is kept."""
    group = [*_star(A, B, C), *_pair(B, D), *_pair(D, E)]
    roster = _roster(group).remove(A, D.device).remove(A, B.device)
    assert _others(roster) == "ce"
    assert _others(roster.merge([_add(B, D, term=1), _add(B, D, term=9)], A)) == "ce"


def test_whom_a_device_added_after_it_was_let_in_again_stays_when_it_is_removed_again() -> None:
    roster = _roster([*_star(A, B, C), *_pair(B, D)]).remove(A, B.device)
    roster = roster.add(C, certificate=B.certificate, name="b")
    roster = roster.add(B, certificate=E.certificate, name="e").remove(A, B.device)
    assert _others(roster) == "cde"
    assert _others(roster, C) == "ade"


def test_letting_in_again_lets_in_nobody_else() -> None:
    roster = _roster(_star(A, B, C)).remove(A, B.device)
    roster = roster.merge([_add(B, D), _add(D, E), _remove(B, C)], A)
    again = roster.add(A, certificate=B.certificate, name="b")
    assert _others(again) == "bc"
    assert _others(again.add(B, certificate=D.certificate, name="d")) == "bcd"


def test_one_who_was_let_in_again_has_not_returned_unasked() -> None:
    removed = _roster(_star(A, B, C)).remove(A, B.device)
    again = removed.add(C, certificate=B.certificate, name="b")
    assert again.view(A.device).returned_since(removed.view(A.device)) == frozenset()


def test_a_removal_at_the_last_term_is_for_good() -> None:
    roster = _roster([*_star(A, B, C), _remove(A, B, term=MAX_TERM)])
    with pytest.raises(RefusedError, match="new identity"):
        roster.add(A, certificate=B.certificate, name="b")


# --- names --------------------------------------------------------------------------------------


def test_the_last_rename_wins_whatever_the_clocks_say() -> None:
    roster = _roster(_star(A, B, C)).rename(A, B.device, name="first", stamp=1000)
    roster = roster.rename(C, B.device, name="second", stamp=5)
    assert roster.members(A.device)[B.device].name == "second"


def test_a_device_can_be_renamed_by_another_and_knows() -> None:
    roster = _roster(_star(A, B)).rename(B, A.device, name="attic", stamp=1)
    assert roster.view(A.device).own_name == "attic"


def test_renames_by_a_removed_device_do_not_count() -> None:
    roster = _roster(_star(A, B, C)).remove(A, B.device)
    told = _by(B, Rename(B.device, C.device, "mine", 1 << 62))
    assert roster.merge([told], A).members(A.device)[C.device].name == "name"


def test_only_members_can_be_renamed() -> None:
    with pytest.raises(NotFoundError):
        _roster(_pair(A, B)).rename(A, STRANGER.device, name="x", stamp=1)


def test_a_rename_at_the_end_of_time_does_no_harm() -> None:
    end = (1 << 63) - 1
    roster = _roster(_pair(A, B)).merge([_by(B, Rename(B.device, B.device, "z", end))], A)
    renamed = roster.rename(A, B.device, name="b", stamp=1)
    assert renamed.members(A.device)[B.device].name in {"b", "z"}


# --- bytes --------------------------------------------------------------------------------------


def test_a_roster_survives_encoding() -> None:
    roster = _roster(_star(A, B, C)).remove(A, B.device).rename(A, C.device, name="é", stamp=3)
    read = Roster().merge(decode_statements(roster.encode()), A)
    assert read == roster
    assert read.digest() == roster.digest()
    assert len(roster.digest()) == 32


def test_the_digest_tells_rosters_apart() -> None:
    roster = _roster(_pair(A, B))
    assert roster.digest() != roster.remove(A, B.device).digest() != Roster().digest()


@_PROPERTY
@given(st.binary(max_size=200))
def test_any_bytes_are_statements_or_a_value_error(data: bytes) -> None:
    try:
        statements = decode_statements(data)
    except ValueError:
        return
    assert Roster().merge(statements, A).members(A.device) == {}


@_PROPERTY
@given(st.binary(max_size=120), st.binary(max_size=64))
def test_any_statement_merges_or_is_ignored(statement: bytes, signature: bytes) -> None:
    assert Roster().merge([Signed(statement, signature)], A) == Roster()


def test_a_truncated_or_padded_roster_is_refused() -> None:
    encoded = _roster(_pair(A, B)).encode()
    for damaged in [encoded[:-1], encoded + b"\0", b"", b"\x92\x02\x90", b"\xdd\xff\xff\xff\xff"]:
        with pytest.raises(ValueError, match="not a roster"):
            decode_statements(damaged)


def test_a_roster_that_would_grow_too_big_is_refused_and_the_old_one_stays() -> None:
    renames = [
        _by(B, Rename(B.device, A.device, f"n{number}", number)) for number in range(MAX_STATEMENTS)
    ]
    roster = _roster(_pair(A, B))
    with pytest.raises(RefusedError, match="not taken over"):
        roster.merge(renames, A)
    assert _others(roster) == "b"


# --- properties ---------------------------------------------------------------------------------

_authors = st.sampled_from(DEVICES)
_keeps = st.lists(_authors, unique_by=lambda own: own.device, max_size=5)
_terms = st.integers(0, 2)
_additions = st.builds(_add, _authors, _authors, st.sampled_from(["x", "y"]), term=_terms)
_removals = st.builds(
    lambda by, of, keeps, term, upto: _remove(by, of, *keeps, term=term, upto=upto),
    _authors,
    _authors,
    _keeps,
    _terms,
    _terms,
)
_renames = st.builds(
    lambda by, of, name, stamp: _by(by, Rename(by.device, of.device, name, stamp)),
    _authors,
    _authors,
    st.sampled_from(["x", "y"]),
    st.integers(0, 3),
)
_additions_not_again = st.builds(_add, _authors, _authors)
_statements = st.lists(_additions | _removals | _renames, max_size=14)
_extra = st.lists(st.one_of(_additions, _additions, _removals, _renames), max_size=6)
_GROUP = _star(A, B, C, D, E)


@_PROPERTY
@given(_statements, _statements, _statements)
def test_merge_is_commutative_associative_and_idempotent(
    x: list[Signed], y: list[Signed], z: list[Signed]
) -> None:
    first, second, third = (_roster([*_GROUP, *each]) for each in (x, y, z))
    assert first.merge(second.statements, A) == second.merge(first.statements, A)
    assert first.merge(second.statements, A).merge(third.statements, A) == first.merge(
        second.merge(third.statements, A).statements, A
    )
    assert first.merge(first.statements, A) == first


@_PROPERTY
@given(_statements.flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))))
def test_the_order_of_hearing_does_not_matter(orders: tuple[list[Signed], list[Signed]]) -> None:
    rosters = []
    for order in orders:
        roster = _roster(_GROUP)
        for signed in order:
            roster = roster.merge([signed], A)
        rosters.append(roster)
    assert rosters[0] == rosters[1]
    assert rosters[0].view(A.device) == rosters[1].view(A.device)


@_PROPERTY
@given(_statements)
def test_members_of_one_group_see_the_same_group(statements: list[Signed]) -> None:
    views = {own.device: _roster(statements, own).view(own.device) for own in DEVICES}
    held = {signed for own in DEVICES for signed in _roster(statements, own).statements}
    same = {own.device: _roster(held, own).view(own.device) for own in DEVICES}
    assert views == same
    for left, right in itertools.combinations(views, 2):
        if left in views[right].members and right in views[left].members:
            assert views[left].members.keys() | {left} == views[right].members.keys() | {right}


@_PROPERTY
@given(_extra, st.data())
def test_a_removed_device_stays_removed_whatever_it_signs(
    noise: list[Signed], data: st.DataObject
) -> None:
    group = _roster([*_GROUP, *noise])
    members = [own for own in DEVICES if own.device in group.members(A.device)]
    assume(members)
    gone = data.draw(st.sampled_from(members))
    removed = group.remove(A, gone.device)
    later = data.draw(
        st.lists(
            st.one_of(
                st.builds(_add, st.just(gone), _authors, term=st.integers(0, 4)),
                st.builds(lambda of, keeps: _remove(gone, of, *keeps), _authors, _keeps),
            ),
            max_size=6,
        )
    )
    before, after = removed.view(A.device), removed.merge(later, A).view(A.device)
    assert gone.device in after.removed
    assert gone.device not in after.members
    assert after.members.keys() == before.members.keys()


@_PROPERTY
@given(st.lists(st.builds(_remove, st.just(B), st.sampled_from([C, D, E])), max_size=4))
def test_a_removed_device_removes_nobody_in_the_eyes_of_others(later: list[Signed]) -> None:
    removed = _roster(_GROUP).remove(A, B.device)
    assert _others(removed.merge(later, C), C) == "ade"


@_PROPERTY
@given(st.lists(_additions_not_again | _removals | _renames, max_size=14))
def test_a_removal_by_a_member_in_good_standing_wins_over_all_additions_of_its_term(
    statements: list[Signed],
) -> None:
    removed = _roster(_GROUP).remove(A, B.device)
    after = removed.merge(statements, A).view(A.device)
    assert B.device not in after.members


@_PROPERTY
@given(_statements)
def test_letting_in_again_changes_only_that_device(statements: list[Signed]) -> None:
    roster = _roster([*_GROUP, *statements])
    before = roster.view(A.device)
    for own in DEVICES:
        if own.device in before.removed:
            again = roster.add(A, certificate=own.certificate, name="again")
            after = again.view(A.device)
            assert after.members.keys() == before.members.keys() | {own.device}
            assert after.returned_since(before) == frozenset()


@_PROPERTY
@given(_statements)
def test_removing_a_member_costs_only_that_member(statements: list[Signed]) -> None:
    roster = _roster([*_GROUP, *statements])
    before = roster.view(A.device)
    for device in before.members:
        after = roster.remove(A, device).view(A.device)
        assert after.members.keys() == before.members.keys() - {device}
        assert after.removed >= before.removed
