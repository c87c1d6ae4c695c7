"""Devices for tests of the network: identities on disk, certificates of intruders, sockets."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from p2psync.core.ids import DeviceID
from p2psync.net.identity import (
    Identity,
    IdentityFiles,
    device_of_certificate,
    load_or_create_identity,
)
from p2psync.net.link import TlsLink, handshake
from p2psync.net.tls import client_context, server_context

PATIENCE_S = 5.0
"""How long a test waits for what should come at once."""


@dataclass(frozen=True)
class Device:
    home: Path
    identity: Identity

    @property
    def id(self) -> DeviceID:
        return self.identity.device

    @property
    def certificate(self) -> bytes:
        return self.identity.certificate_der

    @property
    def files(self) -> IdentityFiles:
        return IdentityFiles.in_home(self.home)

    def server(self, *peers: "Device") -> ssl.SSLContext:
        return server_context(self.files, [peer.certificate for peer in peers])

    def client(self, *peers: "Device") -> ssl.SSLContext:
        return client_context(self.files, [peer.certificate for peer in peers])


def make_device(home: Path) -> Device:
    return Device(home, load_or_create_identity(home))


def roster(*devices: Device) -> dict[DeviceID, bytes]:
    return {device.id: device.certificate for device in devices}


def make_forger(home: Path) -> Device:
    """A device whose certificate says CA:TRUE."""
    key = Ed25519PrivateKey.generate()
    return _install(home, key, _issue(key, signed_by=key, ca=True))


def mint(home: Path, *, by: Device) -> Device:
    """A device with a fresh key and a certificate that `by` signed."""
    key = Ed25519PrivateKey.generate()
    return _install(home, key, _issue(key, signed_by=by.identity.private_key, ca=False))


def _issue(key: Ed25519PrivateKey, *, signed_by: Ed25519PrivateKey, ca: bool) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2psync" if ca else "child")])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2psync")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(signed_by, algorithm=None)
    )


def _install(home: Path, key: Ed25519PrivateKey, certificate: x509.Certificate) -> Device:
    home.mkdir()
    files = IdentityFiles.in_home(home)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    der = certificate.public_bytes(Encoding.DER)
    return Device(home, Identity(device_of_certificate(der), der, key))


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a loopback TCP connection: (client, server)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


async def shake_hands(
    client: Device, server: Device, *, ends: tuple[socket.socket, socket.socket] | None = None
) -> tuple[TlsLink, TlsLink]:
    """Links of two devices that are paired: (the client's, the server's)."""
    client_end, server_end = ends or tcp_pair()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        dialled = tasks.create_task(
            handshake(
                client_end,
                client.client(server),
                server_side=False,
                pinned=roster(server),
                timeout=PATIENCE_S,
            )
        )
        accepted = tasks.create_task(
            handshake(
                server_end,
                server.server(client),
                server_side=True,
                pinned=roster(client),
                timeout=PATIENCE_S,
            )
        )
    return dialled.result(), accepted.result()


async def read_exactly(link: TlsLink, size: int) -> bytes:
    received = bytearray()
    async with asyncio.timeout(PATIENCE_S):
        while len(received) < size:
            piece = await link.receive()
            assert piece, f"the stream ended after {len(received)} bytes"
            received += piece
    return bytes(received)


async def close_all(links: Iterable[TlsLink]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for link in links:
            tasks.create_task(link.close())


def open_sockets() -> set[str]:
    """The sockets this process holds, by inode."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("socket:"):
                found.add(target)
    return found
