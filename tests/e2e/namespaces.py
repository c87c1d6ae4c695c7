"""Network namespaces: small networks that no packet can leave, made and removed by a test."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "nsenter"))),
    reason="network namespaces need root and the tools ip, nft and nsenter",
)

MDNS_ONLY = "meta l4proto udp udp dport != 5353 drop"
"""Every datagram is lost but those of multicast DNS."""

NO_MULTICAST = (
    "meta l4proto udp ip daddr 224.0.0.0/4 drop",
    "meta l4proto udp ip6 daddr ff00::/8 drop",
)
"""What many wireless networks do."""

NO_DATAGRAMS = "meta l4proto udp drop"
"""Nothing can be discovered; only a typed address is left."""

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Namespace:
    """One host of a network."""

    name: str

    @property
    def enter(self) -> tuple[str, ...]:
        """Words to put before a command to run it on this host."""
        return ("nsenter", f"--net=/run/netns/{self.name}", "--")

    def run(self, *words: str) -> None:
        _run(*self.enter, *words)

    def drop(self, *rules: str) -> None:
        """Silently lose what arrives here and matches, as a firewall or an access point does."""
        self.run("nft", "add", "table", "inet", "test")
        hook = "{ type filter hook input priority 0; }"
        self.run("nft", "add", "chain", "inet", "test", "incoming", hook)
        for rule in rules:
            self.run("nft", "add", "rule", "inet", "test", "incoming", *rule.split())

    def drop_no_more(self) -> None:
        self.run("nft", "delete", "table", "inet", "test")


class Network:
    """Namespaces and the cables between them. Use `network()`."""

    def __init__(self) -> None:
        self.hosts: list[Namespace] = []
        self._ends: dict[str, tuple[Namespace, str]] = {}
        """Where a cable is plugged in, by its address."""

    def host(self) -> Namespace:
        """A host with nothing but a loopback that carries multicast."""
        host = Namespace(f"p2ptest-{os.getpid()}-{next(_numbers)}")
        _run("ip", "netns", "add", host.name)
        self.hosts.append(host)
        host.run("ip", "link", "set", "lo", "up", "multicast", "on")
        return host

    def lonely_host(self) -> Namespace:
        """A host on which several devices find each other over loopback."""
        host = self.host()
        host.run("ip", "route", "add", "224.0.0.0/4", "dev", "lo")
        return host

    def cable(self, left: Namespace, right: Namespace) -> tuple[str, str]:
        """Join two hosts directly; nothing is routed further. Returns both addresses."""
        number = next(_numbers) % 250
        ends = (f"p2pl{number}", f"p2pr{number}")
        _run(
            *("ip", "link", "add", ends[0], "netns", left.name, "type", "veth"),
            *("peer", "name", ends[1], "netns", right.name),
        )
        addresses = (f"10.77.{number}.1", f"10.77.{number}.2")
        for host, end, address in zip((left, right), ends, addresses, strict=True):
            host.run("ip", "address", "add", f"{address}/24", "broadcast", "+", "dev", end)
            self._ends[address] = (host, end)
            self.plug_in(address)
        return addresses

    def pull_out(self, address: str) -> None:
        """The cable at `address`: both ends notice."""
        host, end = self._ends[address]
        host.run("ip", "link", "set", end, "down")

    def plug_in(self, address: str) -> None:
        host, end = self._ends[address]
        host.run("ip", "link", "set", end, "up")
        # Taken away whenever a cable is pulled out.
        host.run("ip", "route", "append", "224.0.0.0/4", "dev", end)

    def close(self) -> None:
        for host in self.hosts:
            subprocess.run(["ip", "netns", "delete", host.name], check=False)


@contextmanager
def network() -> Iterator[Network]:
    """A network that is gone afterwards. End what runs in it first."""
    made = Network()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def overheard(host: Namespace, record: Path) -> Iterator[None]:
    """Write the bytes of every datagram seen on `host` to `record`."""
    listener = subprocess.Popen(
        [*host.enter, sys.executable, str(Path(__file__).with_name("listener.py")), str(record)],
        stdout=subprocess.PIPE,
    )
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"listening\n"
        yield
    finally:
        listener.kill()
        listener.wait()
        assert listener.stdout is not None
        listener.stdout.close()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
