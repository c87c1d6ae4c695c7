"""A member that lies about content, asks for what is not its own, or says too much of it."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from p2psync.core.entry import Chunk, Entry, Kind
from p2psync.core.ids import Digest
from p2psync.core.manifest import content_id_of_manifest, encode_manifest
from p2psync.core.statements import Rename, Signed, encode_statement, encode_statements
from p2psync.core.version import Dot, deletion_successor
from p2psync.protocol.chunks import packer
from p2psync.protocol.messages import (
    MISSING,
    Addresses,
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    FolderDigest,
    FolderOffer,
    FolderWithdrawn,
    IndexAck,
    IndexBatch,
    ManifestReply,
    ManifestRequest,
    Ping,
    Pong,
    Roster,
    Status,
)
from p2psync.protocol.wire import encode_frame
from tests.e2e.device import FOLDER
from tests.e2e.harness import everywhere
from tests.e2e.hostile import REPLICA, Answer, Conversation, digest, file, link, pack, supplying
from tests.e2e.processes import eventually
from tests.e2e.site import DIARY, SECRET, Site
from tests.support.swapping import swap

MIB = 1 << 20


# --- lies about content -------------------------------------------------------------------------


def _has_asked(talk: Conversation, times: int) -> bool:
    return len(talk.heard_of(ChunkRequest)) >= times or talk.ended.is_set()


def test_a_file_whose_bytes_are_others_never_lands_and_its_author_is_dropped(site: Site) -> None:
    good = b"what it says it is"
    known = supplying(good)

    def answer(message: AnyMessage) -> Sequence[tuple[AnyMessage, bytes]]:
        if isinstance(message, ChunkRequest) and digest(good) in message.digests:
            return known(message)
        return supplying(lie=b"x" * 10)(message)

    talk = site.talk(answer=answer)
    before = len(site.ada.log_text())
    wrong = [(f"wrong {number}", file(number, bytes([number]) * 32, 10)) for number in range(1, 9)]
    talk.offer(("good", file(9, digest(good), len(good))))
    everywhere([site.ada, site.bob], "good", good)
    for count, one in enumerate(wrong, start=2):
        # Each in a request of its own, so that each counts.
        talk.offer(one)
        eventually(
            partial(_has_asked, talk, count), within=20, what="it is asked for, or hung up on"
        )
    site.is_refused(talk, before, "wrong data several times")
    for path, _ in wrong:
        assert site.ada.read(path) is None
    site.check()


def _manifest_of(*chunks: tuple[bytes, int]) -> tuple[bytes, bytes, int]:
    manifest = tuple(Chunk(Digest(digest(data)), size) for data, size in chunks)
    return (
        content_id_of_manifest(manifest),
        encode_manifest(manifest),
        sum(size for _, size in chunks),
    )


def _supplying_manifest(manifest: bytes, chunks: Answer) -> Answer:
    def answer(message: AnyMessage) -> Sequence[tuple[AnyMessage, bytes]]:
        if isinstance(message, ManifestRequest):
            return [(ManifestReply(message.request), manifest)]
        return chunks(message)

    return answer


DATA = (os.urandom(200_000), os.urandom(200_000))


@pytest.mark.parametrize(
    ("sizes", "sent"),
    [((200_000, 300_000), 1), ((300_000, 100_000), 1), ((200_000, 200_000), 0)],
    ids=["a chunk that is shorter", "a chunk that is longer", "another manifest"],
)
def test_a_manifest_that_lies_gives_no_file_and_its_author_is_dropped(
    site: Site, sizes: tuple[int, int], sent: int
) -> None:
    content, manifest, size = _manifest_of(*zip(DATA, sizes, strict=True))
    shown = manifest if sent else manifest[:36] + bytes(32) + manifest[68:]
    talk = site.talk(answer=_supplying_manifest(shown, supplying(*DATA)))
    before = len(site.ada.log_text())
    # Other names are tried when the first is put off.
    talk.offer(*((f"liar {size} {at}", file(at, content, size)) for at in range(1, 5)))
    site.is_refused(talk, before, "wrong data several times")
    assert not list(site.ada.root.glob("liar*"))
    site.check()


def test_a_member_that_says_nothing_holds_others_up_once_and_not_for_long(site: Site) -> None:
    talk = site.talk()
    for number in range(1, 4):
        promised = b"promised %d" % number
        talk.offer((f"promised {number}", file(number, digest(promised), len(promised))))
        talk.until(partial(talk.heard_of, ChunkRequest), what="it is asked for content")
        site.bob.write(f"of bob {number}", promised + b" by nobody")
        # Far less than it may owe an answer before it is dropped.
        everywhere([site.ada], f"of bob {number}", promised + b" by nobody", within=20)
    assert len(talk.heard_of(ChunkRequest)) == 1
    (asked,) = talk.heard_of(ChunkRequest)
    talk.say(*supplying(b"promised 1")(asked)[0])
    eventually(
        partial(_has_asked, talk, 2), within=10, what="it is asked again, now that it answers"
    )
    site.check()


def test_wrong_bytes_are_not_asked_for_again_at_once_and_come_from_another(site: Site) -> None:
    true = b"as bob wrote it"
    asked: list[float] = []

    def lie(message: AnyMessage) -> Sequence[tuple[AnyMessage, bytes]]:
        if isinstance(message, ChunkRequest) and digest(true) in message.digests:
            asked.append(time.monotonic())
        return supplying(lie=b"as mallory has it")(message)

    talk = site.talk(answer=lie)
    talk.offer(("twofold", file(1, digest(true), len(true))))
    eventually(lambda: len(asked) > 1, within=20, what="it is asked for once more")
    assert asked[1] - asked[0] > 1.5
    assert site.ada.read("twofold") is None
    site.bob.write("twofold", true)
    everywhere([site.ada], "twofold", true)
    site.check()


def test_a_claim_of_all_the_disk_takes_none_of_it(site: Site) -> None:
    facts = os.statvfs(site.ada.root)
    count = min(facts.f_bavail * facts.f_frsize // (16 * MIB) + 2, 900_000)
    content, manifest, size = _manifest_of((DATA[0], 200_000), *[(b"no", 16 * MIB)] * count)
    talk = site.talk(answer=_supplying_manifest(manifest, supplying(DATA[0])))
    talk.offer(("huge", file(1, content, size)), ("huger", file(2, content, 1 << 50)))
    talk.until(lambda: talk.heard_of(ManifestRequest), what="the manifest is asked for")
    least = [facts.f_bavail]

    def told() -> bool:
        least.append(os.statvfs(site.ada.root).f_bavail)
        return any(problem["path"] == "huge" for problem in site.ada.problems())

    eventually(told, within=20, what="the file is a problem", every=0.005)
    # Others write to this disk too.
    assert (facts.f_bavail - min(least)) * facts.f_frsize < 2_000 * MIB
    site.check()


def test_an_index_in_which_everything_is_deleted_waits_for_approval(site: Site) -> None:
    for number in range(150):
        site.bob.write(f"many/{number}", f"{number}")
    talk = site.talk()
    paths = {f"many/{number}" for number in range(150)}
    talk.until(lambda: paths <= talk.index.keys(), what="ada holds and tells all of it")
    deleted = [
        (
            path,
            Entry(
                Kind.TOMBSTONE,
                deletion_successor(
                    talk.index[path].version, Dot(REPLICA, at), now_ns=1, author="mallory"
                ),
            ),
        )
        for at, path in enumerate(sorted(talk.index), start=1)
    ]
    talk.offer(*deleted)
    eventually(lambda: "approve" in str(site.ada.folder()), within=20, what="the deletions wait")
    site.check()
    for device in (site.ada, site.bob):
        assert len(list((device.root / "many").iterdir())) == 150


def test_what_lies_behind_a_gap_in_an_index_is_not_taken_and_not_acknowledged(site: Site) -> None:
    before, beyond = b"before the gap", b"beyond the gap"
    first = ("before the gap", file(1, digest(before), len(before)))
    last = ("beyond the gap", file(2, digest(beyond), len(beyond)))
    talk = site.talk(answer=supplying(before, beyond))
    talk.say(IndexBatch(FOLDER, talk.epoch, 5, 6), pack([(6, *last)]))
    talk.say(Ping())
    talk.until(lambda: talk.heard_of(Pong), what="it has come by the batch")
    assert all(each.received == 0 for each in talk.heard_of(IndexAck))
    talk.offer(first, last)
    everywhere([site.ada, site.bob], last[0], beyond)
    everywhere([site.ada, site.bob], first[0], before)
    site.check()


def test_an_index_that_breaks_off_goes_on_from_what_was_taken(site: Site) -> None:
    taken, other = b"taken before it broke", b"told after it broke"
    talk = site.talk(answer=supplying(taken))
    log = len(site.ada.log_text())
    talk.offer(("taken", file(1, digest(taken), len(taken))))
    everywhere([site.ada, site.bob], "taken", taken)
    wrong = [(3, "b", file(3, digest(b"x"), 1)), (2, "a", file(2, digest(b"x"), 1))]
    talk.say(IndexBatch(FOLDER, talk.epoch, 1, 3), pack(wrong))
    site.is_refused(talk, log, "out of order")
    again = site.mallory.connect(site.ada, answer=supplying(other))
    again.until(lambda: _cursors(again), what="ada says how far it got")
    assert _cursors(again)[0] == (talk.epoch, 1)
    again.say(FolderOffer(FOLDER, talk.epoch, 9, 0, 0))
    entry = file(2, digest(other), len(other))
    again.say(IndexBatch(FOLDER, talk.epoch, 1, 2), pack([(2, "after it broke", entry)]))
    everywhere([site.ada, site.bob], "after it broke", other)
    assert site.ada.read("a") is None
    assert site.ada.read("b") is None
    site.check()


def test_one_whose_digest_is_another_is_asked_for_its_whole_index_again(site: Site) -> None:
    content = b"held before the drift"
    talk = site.talk(answer=supplying(content))
    log = len(site.ada.log_text())
    talk.share(sequence=1)
    talk.offer(("drifted", file(1, digest(content), len(content))))
    everywhere([site.ada, site.bob], "drifted", content)

    def differs() -> bool:
        # Both have to be at rest, and who is cannot be known from here.
        ours = max((batch.upto for batch in talk.heard_of(IndexBatch)), default=0)
        epoch = next(each.epoch for each in talk.heard_of(FolderOffer) if each.folder == FOLDER)
        talk.say(IndexAck(FOLDER, epoch, ours, ours))
        talk.say(FolderDigest(FOLDER, 1, ours, bytes(32)))
        return talk.ended.is_set()

    eventually(differs, within=20, what="the drift is found")
    site.is_refused(talk, log, "drifted apart")
    again = site.mallory.connect(site.ada)
    again.until(lambda: _cursors(again), what="ada says how far it got")
    assert _cursors(again)[0] == (0, 0)
    assert site.ada.read("drifted") == content
    site.check()


def _cursors(talk: Conversation) -> list[tuple[int, int]]:
    """How far ada says it knows mallory's index."""
    return [
        (each.cursor_epoch, each.cursor_sequence)
        for each in talk.heard_of(FolderOffer)
        if each.folder == FOLDER
    ]


# --- places ---------------------------------------------------------------------------------------


def test_a_link_that_leads_out_is_no_way_out(site: Site) -> None:
    outside = site.outside()
    through = b"through the door"
    talk = site.talk(answer=supplying(through))
    doors = [("door", link(1, str(outside))), ("up", link(2, ".."))]
    talk.offer(*doors)
    for name, _ in doors:
        eventually((site.ada.root / name).is_symlink, within=20, what="the link is there")
    entry = file(3, digest(through), len(through))
    talk.offer(("door/file", entry), ("up/file", entry), ("door/more/file", entry))
    talk.until(lambda: talk.heard_of(ChunkRequest), what="the file is on its way")
    site.check()
    assert list(outside.iterdir()) == []
    assert not (site.ada.root.parent / "file").exists()
    # What leads out is not looked into either.
    (outside / "private").write_bytes(b"nobody's business")
    site.check()
    assert not _asks(site, talk, FOLDER, digest(b"nobody's business"))
    assert "door/private" not in talk.index


def test_a_directory_swapped_for_a_link_just_before_the_write_leads_nowhere(site: Site) -> None:
    outside = site.outside()
    place, aside = site.ada.root / "swapped", outside.parent / "aside"
    aside.symlink_to(outside)
    site.ada.write("swapped/first", b"1")
    everywhere([site.bob], "swapped/first", b"1")
    known = supplying(b"swapped in")
    swapped = threading.Event()

    def swap_and_answer(message: AnyMessage) -> Sequence[tuple[AnyMessage, bytes]]:
        # It asks for the bytes after it has decided where they go.
        if isinstance(message, ChunkRequest) and not swapped.is_set():
            swap(place, aside)
            swapped.set()
        return known(message)

    talk = site.talk(answer=swap_and_answer)
    entry = file(1, digest(b"swapped in"), len(b"swapped in"))
    talk.offer(("swapped/a", entry), ("swapped/b", entry), ("swapped/new/c", entry))
    talk.until(swapped.is_set, what="it is swapped")
    site.check()
    assert list(outside.iterdir()) == []
    # The link is a change like any other; where files came for the directory it is a copy.
    eventually(
        lambda: all(
            any(path.is_symlink() for path in device.root.glob("swapped*"))
            for device in (site.ada, site.bob)
        ),
        within=20,
        what="both have the link",
    )
    site.check()
    assert list(outside.iterdir()) == []


def test_a_name_of_control_characters_is_a_name_and_drives_no_terminal(site: Site) -> None:
    name = "bell\x07 \x1b[2J\x1b]0;owned\x07\r\nlevel=error"
    site.ada.write(name, b"mine")
    everywhere([site.bob], name, b"mine")
    theirs = b"theirs"
    talk = site.talk(answer=supplying(theirs))
    talk.offer((name, file(1, digest(theirs), len(theirs))))
    eventually(
        lambda: any(name[:4] in row["path"] for row in site.ada.conflicts()),
        within=20,
        what="both are kept",
    )
    said = site.ada.ok("conflicts", "list").out + site.ada.ok("status").out + site.ada.log_text()
    assert "bell" in said
    assert not {"\x07", "\x1b", "\r"} & set(said)
    site.check()


# --- replies --------------------------------------------------------------------------------------

BOMB = packer()(bytes(1 << 20))
REPLIES: dict[str, Callable[[int], tuple[AnyMessage, bytes]]] = {
    "more than was asked for": lambda number: (ChunkReply(number, (1, 1, 1)), b"abc"),
    "sizes that do not add up": lambda number: (ChunkReply(number, (9,)), b"abc"),
    "sizes below nothing": lambda number: (ChunkReply(number, (-5,)), b""),
    "lengths for another number": lambda number: (ChunkReply(number, (3,), (3, 3)), b"abcabc"),
    "a frame that is none": lambda number: (ChunkReply(number, (300,), (9,)), b"no frame."),
    "a frame of more than was told": lambda number: (
        ChunkReply(number, (300,), (len(BOMB),)),
        BOMB,
    ),
    "nothing at all": lambda number: (ChunkReply(number, ()), b""),
    "a manifest": lambda number: (ManifestReply(number), b"x" * 72),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
def test_a_reply_that_does_not_fit_ends_the_session(
    site: Site, reply: Callable[[int], tuple[AnyMessage, bytes]]
) -> None:
    talk = site.talk(
        answer=lambda asked: [reply(asked.request)] if isinstance(asked, ChunkRequest) else ()
    )
    before = len(site.ada.log_text())
    talk.offer(("unfit", file(1, bytes(32), 3)))
    site.is_refused(talk, before, "does not fit its request")
    site.check()


def test_replies_that_nobody_asked_for_are_passed_over(site: Site) -> None:
    talk = site.talk()
    for number in range(300):
        talk.say(ChunkReply(number, (100_000,)), bytes(100_000))
        talk.say(ManifestReply(number), bytes(72))
    site.check()
    assert not talk.ended.is_set()


# --- requests -------------------------------------------------------------------------------------


def _asks(site: Site, talk: Conversation, folder: str, content: bytes) -> bool:
    """Whether ada gave it the content."""
    number = len(talk.heard) + 1000
    talk.say(ChunkRequest(number, folder, (content,)))
    talk.say(ManifestRequest(number, folder, content))

    def chunks() -> list[ChunkReply]:
        return [reply for reply in talk.heard_of(ChunkReply) if reply.request == number]

    def manifests() -> list[ManifestReply]:
        return [reply for reply in talk.heard_of(ManifestReply) if reply.request == number]

    talk.until(lambda: chunks() and manifests(), what="both are answered")
    return chunks()[0].sizes != (MISSING,)


def test_content_is_given_out_of_the_folder_that_was_named_and_of_no_other(site: Site) -> None:
    site.ada.write("public", b"for all")
    everywhere([site.bob], "public", b"for all")
    talk = site.talk()
    assert _asks(site, talk, FOLDER, digest(b"for all"))
    for folder in (FOLDER, DIARY, "nowhere", "..", "x" * 64):
        assert not _asks(site, talk, folder, digest(SECRET)), folder
    site.ada.ok("folder", "pause", FOLDER)
    assert not _asks(site, talk, FOLDER, digest(b"for all"))
    site.ada.ok("folder", "resume", FOLDER)
    talk.share()
    talk.until(lambda: _asks(site, talk, FOLDER, digest(b"for all")), what="it is given again")
    assert SECRET.decode() not in str(talk.heard) and DIARY not in str(talk.heard)
    site.check()


def test_what_lies_in_the_trash_in_the_home_or_beside_the_folder_is_given_to_nobody(
    site: Site,
) -> None:
    site.bob.write("replaced", b"an older version")
    everywhere([site.ada], "replaced", b"an older version")
    site.bob.write("replaced", b"the newer one")
    everywhere([site.ada], "replaced", b"the newer one")
    internal = site.ada.root / ".p2psync"

    def in_the_trash() -> bool:
        files = [path for path in internal.rglob("*") if path.is_file()]
        return any(path.read_bytes() == b"an older version" for path in files)

    eventually(in_the_trash, within=10, what="the older version is in the trash")
    talk = site.talk()
    assert _asks(site, talk, FOLDER, digest(b"the newer one"))
    secret = [path for top in (internal, site.ada.home) for path in top.rglob("*")]
    asked = {digest(path.read_bytes()) for path in secret if path.is_file()}
    assert len(asked) > 5
    for content in asked:
        assert not _asks(site, talk, FOLDER, content)
    site.check()


def test_more_requests_than_are_allowed_end_the_session(site: Site) -> None:
    site.ada.write("large", os.urandom(20 * MIB))
    site.check()
    talk = site.talk(reads=False)
    before = len(site.ada.log_text())
    chunk = digest(b"for all")
    frames = [encode_frame(ChunkRequest(number, FOLDER, (chunk,) * 1024)) for number in range(2000)]
    talk.raw(b"".join(frames))
    eventually(
        lambda: "more at once" in site.ada.log_text()[before:], within=20, what="ada says why"
    )
    site.check()


# --- floods ---------------------------------------------------------------------------------------

FLOODS: dict[str, Sequence[AnyMessage]] = {
    "pings": [Ping()] * 1000,
    "statuses": [Status(FOLDER, number, (1 << 63) - 1) for number in range(1000)],
    "addresses": [
        Addresses(tuple((os.urandom(32), f"10.{n}.0.{at}", 9) for at in range(250)))
        for n in range(20)
    ],
    "offers of the folder": [FolderOffer(FOLDER, number, 9, 0, 0) for number in range(1, 200)],
    "offers of others": [FolderOffer(f"f{number}", 1, 9, 0, 0) for number in range(200)],
    "withdrawals": [FolderWithdrawn(FOLDER)] * 200,
}


@pytest.mark.parametrize("messages", FLOODS.values(), ids=FLOODS.keys())
@pytest.mark.parametrize("reads", [True, False], ids=["who reads", "who does not read"])
def test_a_flood_holds_up_nobody_else(
    site: Site, messages: Sequence[AnyMessage], reads: bool
) -> None:
    talk = site.talk(reads=reads)
    flood = b"".join(encode_frame(message) for message in messages)
    for _ in range(3):
        talk.raw(flood)
    site.check()


def test_a_flood_of_offers_of_folders_ends_the_session(site: Site) -> None:
    talk = site.talk()
    before = len(site.ada.log_text())
    talk.raw(*(encode_frame(FolderOffer(f"f{number}", 1, 9, 0, 0)) for number in range(300)))
    site.is_refused(talk, before, "more folders than anyone has")
    assert "f1" not in site.ada.ok("folder", "list").out
    site.check()


def test_forged_rosters_cost_time_of_a_thread_and_change_nothing(site: Site) -> None:
    talk = site.talk()
    before = site.ada.status()["devices"]
    forged = [
        Signed(
            encode_statement(Rename(site.mallory.own.device, site.mallory.own.device, "eve", n)),
            bytes(64),
        )
        for n in range(4000)
    ]
    payload = encode_statements(frozenset(forged))
    for _ in range(5):
        talk.say(Roster(), payload)
    site.check()
    talk.say(Roster(), site.mallory.roster.encode())
    names = [row["name"] for row in site.ada.status()["devices"]]
    assert names == [row["name"] for row in before]


def test_a_roster_that_is_none_ends_the_session(site: Site) -> None:
    talk = site.talk()
    before = len(site.ada.log_text())
    talk.say(Roster(), b"\x92\x01\xdd\xff\xff\xff\xff")
    site.is_refused(talk, before, "malformed roster")
    site.check()


def test_a_peer_that_never_reads_holds_bounded_memory(site: Site) -> None:
    site.ada.write("much", os.urandom(24 * MIB))
    site.check()
    helper = site.talk()
    content = helper.index_of("much").content
    number = 5
    helper.say(ManifestRequest(number, FOLDER, content))
    helper.until(lambda: helper.manifests, what="the manifest comes")
    chunks = tuple(chunk.digest for chunk in helper.manifests[-1])
    talk = site.talk(reads=False)
    talk.raw(*(encode_frame(ChunkRequest(number, FOLDER, chunks)) for number in range(20)))
    site.check(rss_mib=600)


def test_a_path_with_a_losing_version_that_nobody_can_have_goes_on_changing(site: Site) -> None:
    site.ada.write("contested", b"one")
    everywhere([site.bob], "contested", b"one")
    talk = site.talk(answer=supplying())
    talk.offer(("contested", file(1, digest(b"never sent"), 10)))
    talk.until(lambda: talk.heard_of(ChunkRequest), what="the losing content is asked for")
    site.bob.write("contested", b"two")
    everywhere([site.ada], "contested", b"two")
