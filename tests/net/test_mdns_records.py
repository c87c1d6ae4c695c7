"""What mDNS tells of this device, and how much it believes of others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.net.mdns_records import (
    DEVICE_SERVICE,
    PAIRING_SERVICE,
    device_service,
    pairing_service,
    read_sighting,
)
from p2psync.net.sighting import Sighting

DEVICE = DeviceID(bytes(range(32)))
HOSTS = ["192.0.2.7", "fe80::1%2"]


def test_what_a_device_tells_is_read_back() -> None:
    told = device_service(DEVICE, 4711, HOSTS)

    assert read_sighting(
        told.type, dict(told.text), told.addresses, told.port, with_loopback=False
    ) == Sighting(DEVICE, (("192.0.2.7", 4711), ("fe80::1%2", 4711)), "mdns")


def test_what_a_pairing_window_tells_is_read_back() -> None:
    told = pairing_service(DEVICE, 65535, 4711, instance="3f-9a", addresses=HOSTS[:1])

    assert told.name == f"3f-9a.{PAIRING_SERVICE}"
    assert read_sighting(
        told.type, dict(told.text), told.addresses, told.port, with_loopback=False
    ) == Sighting(None, (("192.0.2.7", 4711),), "mdns", 65535)


def test_nothing_but_the_id_names_the_device() -> None:
    told = device_service(DEVICE, 4711, HOSTS)

    assert told.name == f"{short_device_id(DEVICE)}.{DEVICE_SERVICE}"
    assert told.server == f"p2psync-{short_device_id(DEVICE)}.local."
    assert {key for key, _ in told.text} == {"v", "id"}


def test_no_more_than_sixteen_addresses_are_told_or_believed() -> None:
    many = [f"192.0.2.{number}" for number in range(1, 40)]
    told = device_service(DEVICE, 4711, many)
    assert list(told.addresses) == many[:16]
    sighting = read_sighting(told.type, dict(told.text), many, 4711, with_loopback=False)
    assert sighting is not None
    assert [host for host, _ in sighting.addresses] == many[:16]


@pytest.mark.parametrize(
    ("change", "port"),
    [
        ({"v": "2"}, 4711),
        ({"v": None}, 4711),
        ({"id": None}, 4711),
        ({"id": ""}, 4711),
        ({"id": "aaaa"}, 4711),
        ({"id": "é" * 52}, 4711),
        ({"id": "!" * 52}, 4711),
        ({"id": "a" * 10_000}, 4711),
        ({}, None),
        ({}, 0),
        ({}, 65536),
        ({}, -1),
    ],
    ids=repr,
)
def test_a_malformed_device_is_passed_over(change: dict[str, str | None], port: int | None) -> None:
    text = {**dict(device_service(DEVICE, 4711, HOSTS).text), **change}

    assert read_sighting(DEVICE_SERVICE, text, HOSTS, port, with_loopback=False) is None


@pytest.mark.parametrize("nameplate", [None, "", "0", "65536", "-1", "1.5", "٣", "1 ", "9" * 5000])
def test_a_malformed_nameplate_is_passed_over(nameplate: str | None) -> None:
    text = {"v": "1", "np": nameplate}

    assert read_sighting(PAIRING_SERVICE, text, HOSTS, 4711, with_loopback=False) is None


@pytest.mark.parametrize(
    "host", ["", "host.lan", "0.0.0.0", "::", "224.0.0.251", "ff02::fb", "127.0.0.1", "::1"]
)
def test_an_address_of_no_use_is_passed_over(host: str) -> None:
    text = dict(device_service(DEVICE, 4711, HOSTS).text)

    assert read_sighting(DEVICE_SERVICE, text, [host], 4711, with_loopback=False) is None
    sighting = read_sighting(DEVICE_SERVICE, text, [host, *HOSTS], 4711, with_loopback=False)
    assert sighting is not None
    assert [found for found, _ in sighting.addresses] == HOSTS


def test_loopback_counts_where_discovery_is_confined_to_it() -> None:
    text = dict(device_service(DEVICE, 4711, HOSTS).text)

    sighting = read_sighting(DEVICE_SERVICE, text, ["127.0.0.1"], 4711, with_loopback=True)

    assert sighting == Sighting(DEVICE, (("127.0.0.1", 4711),), "mdns")


@settings(max_examples=50)
@given(
    service=st.sampled_from([DEVICE_SERVICE, PAIRING_SERVICE]),
    text=st.dictionaries(st.sampled_from(["v", "id", "np", "x"]), st.none() | st.text()),
    hosts=st.lists(st.text() | st.ip_addresses().map(str)),
    port=st.none() | st.integers(),
)
def test_whatever_comes_is_a_whole_sighting_or_none(
    service: str, text: dict[str, str | None], hosts: list[str], port: int | None
) -> None:
    sighting = read_sighting(service, text | {"v": "1"}, hosts, port, with_loopback=False)

    if sighting is not None:
        assert sighting.addresses
        assert all(0 < number <= 65535 for _, number in sighting.addresses)
        assert (sighting.device is None) != (sighting.nameplate is None)
