"""What a member that means harm may say: it costs its own session, and the others go on."""

import zlib
from typing import Any

import msgspec
import pytest

from p2psync.core.version import MAX_STAMP, Dot, Version, first_version
from p2psync.protocol.messages import (
    ChunkRequest,
    FolderOffer,
    Hello,
    IndexAck,
    IndexBatch,
    Ping,
    Status,
)
from p2psync.protocol.wire import MAX_PACKED_ENTRIES, encode_frame
from tests.e2e.device import FOLDER
from tests.e2e.harness import everywhere
from tests.e2e.hostile import REPLICA, digest, file, link, supplying
from tests.e2e.site import Site

# --- frames -------------------------------------------------------------------------------------

_STATUS = encode_frame(Status(FOLDER, 1, 2))
_HUGE = (1 << 63) - 1

FRAMES: dict[str, bytes] = {
    "a length of everything": b"\xff" * 8,
    "a body over the limit": (256 * 1024 + 1).to_bytes(4, "big") + bytes(4),
    "a payload over the limit": bytes(4) + (32 * 1024 * 1024 + 1).to_bytes(4, "big"),
    "a frame of nothing": bytes(8),
    "a length one too small": (len(_STATUS) - 9).to_bytes(4, "big") + _STATUS[4:],
    "a body longer than its message": (len(_STATUS) - 7).to_bytes(4, "big") + _STATUS[4:] + b"\0",
    "a message nobody knows": b"\0\0\0\2\0\0\0\0\x91\x7f",
    "lists without end": b"\0\4\0\0\0\0\0\0\x92\x0d" + b"\x91" * (256 * 1024 - 2),
    "a claim of much": b"\0\0\0\x08\0\0\0\0\x93\x0a\x01\xdd\xff\xff\xff\xff",
    "a count over all": b"\0\0\0\x16\0\0\0\0\x94\x0b\xa1a\xcf"
    + b"\xff" * 8
    + b"\xcf"
    + b"\xff" * 8,
    "a number below nothing": b"\0\0\0\x06\0\0\0\0\x94\x0b\xa1a\xff\x00",
    "a request for too much": encode_frame(ChunkRequest(1, FOLDER, (bytes(32),) * 1025)),
    "a request for no digest": encode_frame(ChunkRequest(1, FOLDER, (b"",))),
    "a second introduction": encode_frame(Hello(1, (), "x", bytes(32), 0)),
    "the web": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_that_is_none_ends_the_session(site: Site, frame: bytes) -> None:
    talk = site.talk()
    before = len(site.ada.log_text())
    talk.raw(frame)
    site.is_refused(talk, before, "The peer")
    site.check()


@pytest.mark.parametrize("kept", [0, 3, 4, 7, 8, 9, len(_STATUS) - 1])
def test_a_frame_that_is_cut_does_no_harm(site: Site, kept: int) -> None:
    talk = site.talk()
    talk.raw(_STATUS[:kept])
    site.check()
    talk.hang_up()
    site.check()


@pytest.mark.parametrize("first", [encode_frame(Ping()), b"\xff" * 8], ids=["a ping", "noise"])
def test_who_does_not_introduce_itself_is_not_heard_and_that_is_logged(
    site: Site, first: bytes
) -> None:
    before = len(site.ada.log_text())
    talk = site.mallory.connect(site.ada, greets=False)
    talk.raw(first)
    site.is_refused(talk, before, "The peer")
    site.check()


# --- entries --------------------------------------------------------------------------------------

_FILE = file(1, digest(b"x"), 1)
_DEEP = "/".join("d" * 201)


def _version(**changes: Any) -> Version:
    return msgspec.structs.replace(_FILE.version, **changes)


BATCHES: dict[str, Any] = {
    **{
        f"the path {path[:12]!r}": (1, path, _FILE)
        for path in (
            "../outside", "/etc/passwd", "a/../../b", "a//b", "", ".", ".p2psync/folder",
            ".P2PSYNC/x", "a/.p2psync/tmp", "nul\0", "n" * 256, "/".join(["x" * 250] * 16),
            "/".join(["y" * 250] * 17), _DEEP,
        )
    },
    "a path that is no text": (1, msgspec.Raw(b"\xa2\xff\xfe"), _FILE),
    "a copy of what is outside": (1, "a", file(1, digest(b"x"), 1, copy_of="../a")),
    "a file below nothing": (1, "a", file(1, digest(b"x"), -1)),
    "a file without a digest": (1, "a", file(1, b"", 1)),
    "a file with half a digest": (1, "a", file(1, bytes(16), 1)),
    "a link to nowhere": (1, "a", link(1, "")),
    "a link with a zero": (1, "a", link(1, "a\0b")),
    "a file of an exbibyte": (1, "a", file(1, digest(b"x"), 1 << 60)),
    "a stamp after the end": (1, "a", file(1, digest(b"x"), 1, version=_version(stamp=1 << 63))),
    "a long vector": (
        1,
        "a",
        file(1, digest(b"x"), 1, version=_version(
            vector=(*((number, 1) for number in range(1, 1025)), (REPLICA, 1))
        )),
    ),
    "a counter over all": (
        1, "a", file(1, digest(b"x"), 1, version=_version(vector=((REPLICA, 1 << 63),)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("item", BATCHES.values(), ids=BATCHES.keys())
def test_an_entry_that_no_honest_device_has_ends_the_session(site: Site, item: Any) -> None:
    talk = site.talk()
    before = len(site.ada.log_text())
    talk.say(IndexBatch(FOLDER, talk.epoch, 0, 1), zlib.compress(msgspec.msgpack.encode([item])))
    site.is_refused(talk, before, "The peer sent")


def test_nothing_of_all_that_is_on_the_disk(site: Site) -> None:
    site.check()
    for device in (site.ada, site.bob):
        assert {path.name[:6] for path in device.root.iterdir()} <= {".p2psy", "check "}
        assert not (device.root.parent / "outside").exists()


def _bomb() -> bytes:
    return zlib.compress(bytes(64 * MAX_PACKED_ENTRIES), 9)


ORDERS: dict[str, tuple[IndexBatch, bytes]] = {
    "a bomb": (IndexBatch(FOLDER, 0, 0, 1), _bomb()),
    "noise": (IndexBatch(FOLDER, 0, 0, 1), b"noise" * 100),
    "nothing": (IndexBatch(FOLDER, 0, 0, 1), b""),
    "two of one number": (
        IndexBatch(FOLDER, 0, 0, 5),
        zlib.compress(msgspec.msgpack.encode([(1, "a", _FILE), (1, "b", _FILE)])),
    ),
    "beyond what it says": (
        IndexBatch(FOLDER, 0, 0, 1),
        zlib.compress(msgspec.msgpack.encode([(2, "a", _FILE)])),
    ),
}


@pytest.mark.parametrize(("batch", "payload"), ORDERS.values(), ids=ORDERS.keys())
def test_a_batch_that_is_none_ends_the_session(
    site: Site, batch: IndexBatch, payload: bytes
) -> None:
    talk = site.talk()
    before = len(site.ada.log_text())
    talk.say(msgspec.structs.replace(batch, epoch=talk.epoch), payload)
    site.is_refused(talk, before, "The peer sent")
    site.check()


# --- counters -------------------------------------------------------------------------------------


def test_counters_at_the_end_of_the_numbers_cost_nobody_else_anything(site: Site) -> None:
    talk = site.mallory.connect(site.ada, answer=supplying(b"late"))
    talk.say(FolderOffer(FOLDER, _HUGE, _HUGE, _HUGE, _HUGE))
    talk.say(FolderOffer(FOLDER, talk.epoch, _HUGE, 0, 0))
    talk.until(lambda: talk.heard_of(IndexBatch))
    last = first_version(Dot(REPLICA, _HUGE), stamp=MAX_STAMP, author="mallory")
    long = msgspec.structs.replace(
        last, vector=(*((number, _HUGE) for number in range(1, 1024)), (REPLICA, _HUGE))
    )
    late = [
        ("last", file(1, digest(b"late"), 4, version=last, mtime_ns=_HUGE)),
        ("first", file(1, digest(b"late"), 4, version=last, mtime_ns=-(1 << 63))),
        ("long", file(1, digest(b"late"), 4, version=long)),
    ]
    batch = [(_HUGE - 3 + at, path, entry) for at, (path, entry) in enumerate(late)]
    payload = zlib.compress(msgspec.msgpack.encode(batch))
    talk.say(IndexBatch(FOLDER, talk.epoch, 0, _HUGE), payload)
    for path, _ in late:
        everywhere([site.ada, site.bob], path, b"late")
    # Who edits such a file goes on from there.
    site.bob.write("last", b"edited")
    site.ada.write("long", b"edited too")
    everywhere([site.ada], "last", b"edited")
    everywhere([site.bob], "long", b"edited too")
    site.check()
    talk.hang_up()


def test_an_acknowledgement_of_what_was_never_sent_ends_the_session(site: Site) -> None:
    talk = site.talk()
    before = len(site.ada.log_text())
    epoch = next(each.epoch for each in talk.heard_of(FolderOffer) if each.folder == FOLDER)
    talk.say(IndexAck(FOLDER, epoch, _HUGE, _HUGE))
    site.is_refused(talk, before, "acknowledges what was never sent")
    site.check()


def test_one_who_knows_more_of_an_index_than_its_owner_has_it_sent_anew(site: Site) -> None:
    talk = site.talk()
    epoch = next(each.epoch for each in talk.heard_of(FolderOffer) if each.folder == FOLDER)
    talk.say(FolderOffer(FOLDER, talk.epoch, 0, epoch, _HUGE))
    talk.is_dropped()
    site.check()
