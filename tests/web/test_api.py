"""The control server over a real Unix socket, asked by the client of the command line."""

import asyncio
import http.client
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from p2psync import errors
from p2psync.cli.client import ControlClient
from p2psync.errors import (
    ConfigError,
    NotFoundError,
    NotRunningError,
    P2psyncError,
    RefusedError,
    TimedOutError,
    UsageError,
)
from p2psync.web.api import ControlServer
from p2psync.web.control_socket import SOCKET_NAME, reachable_path
from tests.web.fake_control import FakeControl, status

Json = dict[str, Any]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def client(control: FakeControl, tmp_path: Path) -> AsyncIterator[ControlClient]:
    async with ControlServer(control, tmp_path):
        yield ControlClient(tmp_path)


async def ask(client: ControlClient, method: str, **fields: Any) -> Json:
    return await asyncio.to_thread(client.call, method, **fields)


async def raw(home: Path, verb: str, path: str, body: bytes) -> tuple[int, bytes]:
    """One request as bytes."""

    def exchange() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        with connection.sock, reachable_path(home) as where:
            connection.sock.connect(where)
            connection.request(verb, path, body=body, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()

    return await asyncio.to_thread(exchange)


async def test_an_answer_comes_back_as_it_was_given(client: ControlClient) -> None:
    assert await ask(client, "status") == status()


async def test_fields_arrive_and_absent_ones_have_their_default(
    client: ControlClient, control: FakeControl
) -> None:
    await ask(client, "folder_add", path="/srv/ü\n", with_devices=["ben"])

    assert control.calls == [
        (
            "folder_add",
            {
                "path": "/srv/ü\n",
                "name": None,
                "mode": "send-receive",
                "with_devices": ["ben"],
                "dry_run": False,
            },
        )
    ]


async def test_a_path_that_is_not_utf8_survives_both_ways(
    client: ControlClient, control: FakeControl
) -> None:
    path = os.fsdecode(b"/srv/\xff\xfe")
    control.answers["folder_remove"] = {"path": path}

    assert await ask(client, "folder_remove", name=path) == {"path": path}
    assert control.calls[0][1]["name"] == path


@pytest.mark.parametrize(
    "kind",
    [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, P2psyncError)
    ],
)
async def test_every_failure_arrives_as_it_was_raised(
    client: ControlClient, control: FakeControl, kind: type[P2psyncError]
) -> None:
    control.answers["approve"] = kind("It was “not” possible.")

    with pytest.raises(kind, match=r"It was “not” possible\.") as raised:
        await ask(client, "approve", name="Sync")
    assert type(raised.value) is kind
    assert raised.value.exit_code == kind.exit_code


async def test_a_kind_of_failure_of_the_daemons_own_arrives_as_the_one_it_is_derived_from(
    client: ControlClient, control: FakeControl
) -> None:
    class WrongCodeError(RefusedError):
        pass

    control.answers["approve"] = WrongCodeError("Wrong code.")

    with pytest.raises(RefusedError, match="Wrong code"):
        await ask(client, "approve", name="Sync")


async def test_an_unforeseen_failure_is_a_plain_sentence_and_goes_to_the_log(
    client: ControlClient, control: FakeControl, caplog: pytest.LogCaptureFixture
) -> None:
    control.answers["approve"] = RuntimeError("secret detail")

    with pytest.raises(P2psyncError, match="should not") as raised:
        await ask(client, "approve", name="Sync")

    assert "secret detail" not in str(raised.value)
    assert "secret detail" in caplog.text


async def test_an_answer_that_is_no_json_is_a_failure_too(
    client: ControlClient, control: FakeControl
) -> None:
    control.answers["approve"] = {"a": object()}

    with pytest.raises(P2psyncError, match="should not"):
        await ask(client, "approve", name="Sync")


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("folder_pause", {}),
        ("folder_pause", {"name": 5}),
        ("folder_pause", {"name": None}),
        ("folder_pause", {"name": "a", "other": 1}),
        ("folder_add", {"path": "/a", "with_devices": ["a", 5]}),
        ("folder_add", {"path": "/a", "dry_run": "yes"}),
        ("wait", {"timeout": "soon"}),
        ("no_such_method", {}),
        ("_answer", {}),
        ("__init__", {}),
    ],
)
async def test_a_request_of_another_shape_never_reaches_the_daemon(
    client: ControlClient, control: FakeControl, method: str, fields: Json
) -> None:
    with pytest.raises(UsageError):
        await ask(client, method, **fields)
    assert control.calls == []


@pytest.mark.parametrize("body", [b"{", b"[]", b'"a"', b"\xff", b"[" * 100_000, b"5"])
async def test_a_body_that_is_no_object_is_refused(
    client: ControlClient, control: FakeControl, body: bytes
) -> None:
    code, answer = await raw(client.home, "POST", "/status", body)

    assert code == 400
    assert b'"kind":"UsageError"' in answer
    assert control.calls == []


async def test_a_body_that_is_too_long_is_refused(
    client: ControlClient, control: FakeControl
) -> None:
    code, answer = await raw(client.home, "POST", "/status", b" " * (1024 * 1024 + 1))

    assert code == 413
    assert b"UsageError" in answer
    assert control.calls == []


async def test_only_post_is_served(client: ControlClient, control: FakeControl) -> None:
    assert (await raw(client.home, "GET", "/status", b""))[0] == 405
    assert (await raw(client.home, "POST", "/a/b", b""))[0] == 404
    assert control.calls == []


async def test_an_answer_of_some_other_server_is_a_sentence(tmp_path: Path) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(reply, tmp_path / SOCKET_NAME):
        with pytest.raises(P2psyncError, match="cannot be read"):
            await ask(ControlClient(tmp_path), "status")


async def test_an_answer_that_comes_before_the_request_was_read_is_still_read(
    tmp_path: Path,
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error":{"kind":"UsageError","message":"Too long.","exit_code":2}}'
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(refuse, tmp_path / SOCKET_NAME):
        with pytest.raises(UsageError, match="Too long"):
            await ask(ControlClient(tmp_path), "approve", name="x" * 4_000_000)


async def test_a_daemon_that_goes_away_while_answering_is_not_running(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(hang_up, tmp_path / SOCKET_NAME):
        with pytest.raises(NotRunningError, match="stopped before it answered"):
            await ask(ControlClient(tmp_path), "status")


async def test_a_daemon_that_does_not_answer_is_given_up_on(
    control: FakeControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psync.web.api._GRACE_S", 0.01)

    async def never(**_: object) -> Json:
        await asyncio.Event().wait()
        return {}

    control.answers["wait"] = never

    async with ControlServer(control, tmp_path):
        with pytest.raises(TimedOutError, match="did not answer within"):
            await ask(ControlClient(tmp_path), "wait", timeout=1.0, within_s=0.05)


async def test_the_socket_is_for_its_owner_only(client: ControlClient) -> None:
    mode = (client.home / SOCKET_NAME).stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_a_home_with_a_very_long_path_is_served(control: FakeControl, tmp_path: Path) -> None:
    home = tmp_path / ("d" * 120) / ("e" * 120)
    home.mkdir(parents=True)

    async with ControlServer(control, home):
        assert await ask(ControlClient(home), "status") == status()
        mode = (home / SOCKET_NAME).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    assert not (home / SOCKET_NAME).exists()


async def test_the_socket_is_gone_after_the_stop(control: FakeControl, tmp_path: Path) -> None:
    server = ControlServer(control, tmp_path)
    await server.start()
    await server.stop()
    await server.stop()

    assert not (tmp_path / SOCKET_NAME).exists()
    with pytest.raises(NotRunningError, match="Start it with `p2psync daemon`"):
        await ask(ControlClient(tmp_path), "status")


async def test_a_stop_cuts_off_a_request_that_would_last(
    control: FakeControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psync.web.api._GRACE_S", 0.01)
    begun = asyncio.Event()

    async def never(**_: object) -> Json:
        begun.set()
        await asyncio.Event().wait()
        return {}

    control.answers["wait"] = never
    async with ControlServer(control, tmp_path):
        asking = asyncio.create_task(ask(ControlClient(tmp_path), "wait", timeout=20.0))
        async with asyncio.timeout(5):
            await begun.wait()
    async with asyncio.timeout(5):
        with pytest.raises(NotRunningError):
            await asking


async def test_a_stale_socket_is_replaced(control: FakeControl, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_NAME))

    async with ControlServer(control, tmp_path):
        assert await ask(ControlClient(tmp_path), "status") == status()


async def test_a_second_daemon_is_refused_and_the_first_one_stays(
    client: ControlClient, control: FakeControl
) -> None:
    with pytest.raises(ConfigError, match="already running"):
        await ControlServer(control, client.home).start()

    assert await ask(client, "status") == status()


async def test_a_file_in_the_way_is_left_alone(control: FakeControl, tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).write_text("mine")

    with pytest.raises(ConfigError, match="in the way"):
        await ControlServer(control, tmp_path).start()

    assert (tmp_path / SOCKET_NAME).read_text() == "mine"


async def test_a_home_that_is_missing_is_a_sentence(control: FakeControl, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        await ControlServer(control, tmp_path / "none").start()
    with pytest.raises(NotRunningError):
        await ask(ControlClient(tmp_path / "none"), "status")


async def test_a_socket_that_is_no_longer_ours_is_left_alone(
    control: FakeControl, tmp_path: Path
) -> None:
    server = ControlServer(control, tmp_path)
    await server.start()
    (tmp_path / SOCKET_NAME).unlink()
    (tmp_path / SOCKET_NAME).write_text("another")
    await server.stop()

    assert (tmp_path / SOCKET_NAME).read_text() == "another"


async def test_not_found_keeps_its_exit_code(client: ControlClient, control: FakeControl) -> None:
    control.answers["folder_pause"] = NotFoundError("There is no folder “a”.")

    with pytest.raises(NotFoundError) as raised:
        await ask(client, "folder_pause", name="a")
    assert raised.value.exit_code == 4
