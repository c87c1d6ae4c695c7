from ipaddress import IPv4Interface, IPv6Address

import pytest

from p2psync.net.interfaces import Interface, choose_interfaces, list_interfaces


def interface(name: str, *addresses: str, loopback: bool = False, tunnel: bool = False):
    return Interface(
        name=name,
        index=1,
        is_loopback=loopback,
        is_point_to_point=tunnel,
        ipv4=tuple(IPv4Interface(one) for one in addresses if ":" not in one),
        ipv6=tuple(IPv6Address(one) for one in addresses if ":" in one),
    )


LO = interface("lo", "127.0.0.1/8", "::1", loopback=True)
LAN = interface("eth0", "192.0.2.7/24", "192.0.2.8/24", "2001:db8::7")
WLAN = interface("wlan0", "198.51.100.7/25")
TUNNEL = interface("tun0", "10.8.0.2/32", tunnel=True)


def test_all_means_neither_loopback_nor_tunnels():
    assert choose_interfaces([LO, LAN, WLAN, TUNNEL], None) == (LAN, WLAN)


def test_loopback_is_used_where_there_is_nothing_else():
    assert choose_interfaces([LO, TUNNEL], None) == (LO,)


@pytest.mark.parametrize("wanted", ["lo", "127.0.0.1", "127.0.0.9", "::1"])
def test_any_loopback_address_confines_to_the_loopback_interface(wanted: str):
    assert choose_interfaces([LO, LAN, WLAN], [wanted]) == (LO,)


def test_an_address_takes_its_interface_with_that_address_alone():
    (chosen,) = choose_interfaces([LO, LAN, WLAN], ["192.0.2.8"])
    assert (chosen.name, chosen.addresses) == ("eth0", ("192.0.2.8",))


def test_names_and_addresses_that_are_not_there_choose_nothing():
    assert choose_interfaces([LO, LAN], ["eth9", "203.0.113.1"]) == ()


def test_broadcast_addresses_are_those_of_the_subnets_once_each():
    assert LAN.broadcasts == ("192.0.2.255",)
    assert WLAN.broadcasts == ("198.51.100.127",)
    assert LO.broadcasts == ("127.255.255.255",)
    assert TUNNEL.broadcasts == ()


def test_the_loopback_interface_of_this_machine_is_listed():
    (loopback,) = [one for one in list_interfaces() if one.is_loopback]
    assert "127.0.0.1" in loopback.addresses
