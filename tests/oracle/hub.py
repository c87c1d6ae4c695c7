"""A network of hosts around one switch, which falls apart and heals on demand. Needs root.

Nothing leads out of it.
"""

import os
import shutil

from tests.e2e.namespaces import Namespace, Network

_SUBNET = "10.78.0"


def has_hosts() -> bool:
    """Whether hosts of our own can be made here."""
    return os.geteuid() == 0 and all(map(shutil.which, ("ip", "nft", "nsenter")))


class Hub:
    """Hosts are numbered from 0. Close it after everything that runs in it."""

    def __init__(self, hosts: int) -> None:
        self._network = Network()
        self.hosts: list[Namespace] = []
        self._cut: set[int] = set()
        try:
            self._build(hosts)
        except BaseException:
            self.close()
            raise

    def _build(self, hosts: int) -> None:
        switch = self._network.host()
        switch.run("ip", "link", "add", "switch", "type", "bridge")
        switch.run("ip", "link", "set", "switch", "up")
        for number in range(hosts):
            host = self._network.host()
            plug = f"port{number}"
            peer = ("type", "veth", "peer", "name", "eth0", "netns", host.name)
            switch.run("ip", "link", "add", plug, *peer)
            switch.run("ip", "link", "set", plug, "master", "switch", "up")
            host.run("ip", "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")
            self.hosts.append(host)

    def address(self, number: int) -> str:
        return f"{_SUBNET}.{number + 1}"

    def part(self, group: frozenset[int]) -> None:
        """Lose every packet between the group and the others, silently."""
        self.heal()
        for number, host in enumerate(self.hosts):
            others = [
                self.address(other)
                for other in range(len(self.hosts))
                if (other in group) != (number in group)
            ]
            if others:
                host.drop(f"ip saddr {{ {', '.join(others)} }} drop")
                self._cut.add(number)

    def heal(self) -> None:
        for number in sorted(self._cut):
            self.hosts[number].run("nft", "delete", "table", "inet", "test")
        self._cut.clear()

    def close(self) -> None:
        self._network.close()
