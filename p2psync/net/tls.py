"""Mutual TLS 1.3 among pinned certificates: the contexts, and the check after a handshake."""

import contextlib
import ssl
from collections.abc import Collection, Mapping

from p2psync.core.ids import DeviceID
from p2psync.errors import ConfigError
from p2psync.net.identity import IdentityFiles, device_of_certificate

ALPN = "p2psync/1"


def server_context(identity_files: IdentityFiles, peers: Collection[bytes]) -> ssl.SSLContext:
    """A context for accepted connections that trusts exactly the certificates `peers` (DER).

    With no peers it refuses everybody; a peer's certificate that OpenSSL cannot read is left out.
    Raises ConfigError when the identity cannot be loaded.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity_files, peers)
    # A resumed session would skip the certificates, and with them a removal since.
    context.num_tickets = 0
    return context


def client_context(identity_files: IdentityFiles, peers: Collection[bytes]) -> ssl.SSLContext:
    """A context for dialled connections; promises and errors are those of `server_context`."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity_files, peers)


def pinned_peer(
    tls: ssl.SSLObject, pinned: Mapping[DeviceID, bytes]
) -> tuple[DeviceID, bytes] | None:
    """The device and certificate at the other end of a finished handshake, if it is pinned.

    The chain OpenSSL verified is not enough: a pinned certificate with CA:TRUE would let its owner
    mint further ones. Only a leaf that equals a pinned certificate, byte for byte, counts.
    """
    leaf = tls.getpeercert(binary_form=True)
    if leaf is None:
        return None
    try:
        device = device_of_certificate(leaf)
    except ValueError:
        return None
    return (device, leaf) if pinned.get(device) == leaf else None


def _context(
    protocol: int, identity_files: IdentityFiles, peers: Collection[bytes]
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    # Certificates name devices, not hosts.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols([ALPN])
    try:
        context.load_cert_chain(identity_files.certificate, identity_files.key)
    except OSError as error:
        raise ConfigError(
            f"The identity of this device ({identity_files.certificate}, {identity_files.key}) "
            f"cannot be loaded: {error.strerror or error}. Restore both files, then start again."
        ) from error
    for certificate in peers:
        # One by one: a certificate that some member made unreadable must not keep out the others.
        with contextlib.suppress(ssl.SSLError, ValueError):
            context.load_verify_locations(cadata=certificate)
    return context
