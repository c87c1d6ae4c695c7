"""Builds the daemon for one home and runs it: the only place that knows every part."""

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2psync import __version__
from p2psync.config import Config
from p2psync.core.ids import DeviceID, short_device_id
from p2psync.core.roster import OwnDevice, View
from p2psync.daemon.checks import checks
from p2psync.daemon.clock import SystemClock
from p2psync.daemon.control import DaemonControl
from p2psync.daemon.folders import Folders
from p2psync.daemon.memory import collect_rarely, keep_to_one_heap, return_freed_memory
from p2psync.daemon.pairing import Pairing
from p2psync.daemon.power_cut import VARIABLE, end_where_told
from p2psync.daemon.status import StatusReport
from p2psync.engine.addresses import AddressBook
from p2psync.engine.cluster import Cluster
from p2psync.engine.membership import Membership, load_membership
from p2psync.errors import ConfigError
from p2psync.net.discovery import Discovery, Sighting
from p2psync.net.endpoint import Endpoint
from p2psync.net.identity import Identity, device_of_certificate, load_or_create_identity, verify
from p2psync.net.interfaces import choose_interfaces, list_interfaces
from p2psync.storage.device_store import DeviceStore, open_device_store
from p2psync.web.api import ControlServer

_WILDCARDS = ("0.0.0.0", "::")
_CONFIGURED_NAME = "configured name"
_LAST_PORT = "last port"

_log = logging.getLogger(__name__)


async def serve(home: Path, *, config: Config, ready: Callable[[], None]) -> None:
    """Run the daemon of `home` until cancelled or asked to stop; `ready` is called once it answers.

    Raises ConfigError where another daemon has the home or an address cannot be listened on, and
    other P2psyncErrors that keep it from starting.
    """
    _raise_descriptor_limit()
    keep_to_one_heap()
    end_where_told(os.environ.get(VARIABLE))
    with _locked(home):
        identity = load_or_create_identity(home)
        async with contextlib.AsyncExitStack() as stack:
            store = await open_device_store(home / "device.db")
            stack.push_async_callback(store.close)
            await _Daemon(home, config, identity, store).run(stack, ready)


class _Daemon:
    def __init__(self, home: Path, config: Config, identity: Identity, store: DeviceStore) -> None:
        self._home = home
        self._config = config
        self._identity = identity
        self._store = store
        self._clock = SystemClock()
        self._ended = asyncio.Event()
        self._discovery_problems: dict[str, str] = {}

    async def run(self, stack: contextlib.AsyncExitStack, ready: Callable[[], None]) -> None:
        """What is entered into `stack` is left in reverse: control, folders, links, databases."""
        membership = await self._membership()
        endpoint = Endpoint(
            self._identity,
            self._home,
            listen=self._config.listen,
            on_link=lambda link: self._cluster.serve(link, dialled=False),
            on_refused=_log_refused,
            on_pairing=lambda sock: self._pairing.attend(sock),
            last_port=int(await self._store.setting(_LAST_PORT) or 0),
        )
        discovery = self._discovery()
        self._cluster = await self._make_cluster(membership, endpoint)
        self._pairing = Pairing(
            self._identity.certificate_der,
            membership,
            self._cluster,
            discovery,
            self._clock,
            os.urandom,
            ttl_s=self._config.pairing_ttl_s,
        )
        folders = Folders(
            self._home,
            self._config,
            self._store,
            self._cluster,
            membership,
            self._clock,
            os.urandom,
        )
        self._act_on_members(membership, endpoint, folders)
        await endpoint.start()
        stack.push_async_callback(endpoint.stop)
        port = endpoint.addresses[0][1]
        await self._store.set_setting(_LAST_PORT, str(port))
        discovery.announce(port)
        self._pairing.port = port
        works = (self._cluster.run(), discovery.run(), return_freed_memory())
        await stack.enter_async_context(_running(*works))
        stack.push_async_callback(self._cluster.stop)
        stack.push_async_callback(self._pairing.close)
        stack.push_async_callback(folders.close_all)
        await folders.open_all()
        report = StatusReport(
            membership,
            self._cluster,
            folders,
            self._pairing,
            discovery_problems=self._discovery_problems,
        )
        report.listen = _shown(endpoint.addresses)
        control = DaemonControl(
            membership,
            folders,
            self._pairing,
            report,
            self._clock,
            checks=lambda: checks(self._home, report.listen, self._discovery_problems),
            end=self._ended.set,
        )
        await stack.enter_async_context(ControlServer(control, self._home))
        collect_rarely()
        _log.info("running device=%s port=%d", short_device_id(self._identity.device), port)
        ready()
        await self._ended.wait()

    async def _membership(self) -> Membership:
        own = OwnDevice(
            device=self._identity.device,
            certificate=self._identity.certificate_der,
            sign=self._identity.sign,
            verify=verify,
            device_of=device_of_certificate,
        )
        name = self._config.name or short_device_id(own.device)
        membership = await load_membership(self._store, own, name=name)
        # A name given on another device stands until the one in the config file is changed.
        if await self._store.setting(_CONFIGURED_NAME) not in (None, name):
            await membership.rename(own.device, name, now_ns=self._clock.now_ns())
        await self._store.set_setting(_CONFIGURED_NAME, name)
        return membership

    async def _make_cluster(self, membership: Membership, endpoint: Endpoint) -> Cluster:
        return Cluster(
            membership,
            endpoint,
            self._store,
            AddressBook(await self._store.addresses()),
            self._clock,
            os.urandom,
            software=f"p2psync {__version__}",
            listen_port=lambda: endpoint.addresses[0][1] if endpoint.addresses else 0,
        )

    def _act_on_members(self, membership: Membership, endpoint: Endpoint, folders: Folders) -> None:
        def certificates() -> dict[DeviceID, bytes]:
            return {one.device: one.certificate for one in membership.members.values()}

        forgetting: set[asyncio.Task[None]] = set()

        def act(before: View) -> None:
            endpoint.set_peers(certificates())
            for device in before.members.keys() - membership.members.keys():
                task = asyncio.ensure_future(folders.forget_device(device))
                forgetting.add(task)
                task.add_done_callback(forgetting.discard)

        endpoint.set_peers(certificates())
        self._cluster.on_members = act

    def _discovery(self) -> Discovery:
        config = self._config
        key = self._identity.private_key.public_key()
        return Discovery(
            self._identity.device,
            key.public_bytes(Encoding.Raw, PublicFormat.Raw),
            self._identity.sign,
            interfaces=_interfaces(config),
            on_sighting=self._sighted,
            on_problem=self._note_discovery,
            mdns=config.discovery.mdns,
            beacon=config.discovery.beacon,
            beacon_port=config.discovery.beacon_port,
        )

    def _sighted(self, sighting: Sighting) -> None:
        if sighting.device is not None and sighting.nameplate is None:
            self._cluster.hint(sighting.device, sighting.addresses)

    def _note_discovery(self, source: str, sentence: str | None) -> None:
        if sentence is None:
            self._discovery_problems.pop(source, None)
        else:
            self._discovery_problems[source] = sentence
            _log.warning("discovery source=%s problem=%s", source, sentence)


@contextlib.asynccontextmanager
async def _running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """The works run in tasks of their own while the block does; a failure of one ends it."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


def _interfaces(config: Config) -> Sequence[str] | None:
    """Where discovery may speak: as configured, else where this device listens."""
    if config.interfaces is not None:
        return config.interfaces
    hosts = [host for host, _ in config.listen]
    return None if any(host in _WILDCARDS for host in hosts) else hosts


def _shown(addresses: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Listening addresses as others can type them: in place of a wildcard, this machine's own."""
    shown: list[tuple[str, int]] = []
    for host, port in addresses:
        if host not in _WILDCARDS:
            shown.append((host, port))
            continue
        for interface in choose_interfaces(list_interfaces(), None):
            own = interface.ipv4 if host == "0.0.0.0" else ()
            shown += [(str(address.ip), port) for address in own]
            if host == "::":
                shown += [(str(one), port) for one in interface.ipv6 if not one.is_link_local]
    return list(dict.fromkeys(shown))


def _log_refused(address: str, reason: str) -> None:
    _log.warning("connection refused address=%s reason=%s", address, reason)


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Keep other daemons off the home. The lock ends with the process, however that ends."""
    path = home / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"The home {home} cannot be used: {error.strerror}. Check its permissions."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"Another daemon is already running for {home}.") from None
        yield
    finally:
        os.close(handle)


def _raise_descriptor_limit() -> None:
    """The usual soft limit of 1024 is for programs that use select(); this one does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
