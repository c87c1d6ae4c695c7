"""This device's key and certificate, and what a certificate says about the device it names."""

import contextlib
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from p2psync import failpoints
from p2psync.core.ids import DeviceID, device_id_of_public_key
from p2psync.errors import ConfigError

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2psync")])
_NOT_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
"""The epoch: a device whose clock was never set still finds its peers' certificates valid."""
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""RFC 5280, 4.1.2.5: "no well-defined expiration date"."""


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where a home keeps this device's private key (PKCS8 PEM, mode 0600) and certificate (PEM)."""

    key: Path
    certificate: Path

    @staticmethod
    def in_home(home: Path) -> "IdentityFiles":
        return IdentityFiles(key=home / "device.key", certificate=home / "device.crt")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this device is. The private key never shows in `repr`."""

    device: DeviceID
    certificate_der: bytes
    private_key: Ed25519PrivateKey = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """Ed25519 signature of `data`, 64 bytes; `verify` checks it against the certificate."""
        return self.private_key.sign(data)


def load_or_create_identity(home: Path) -> Identity:
    """Read the identity kept in `home`; where there is none, create one that survives a crash.

    An existing key is never replaced. The certificate is a pure function of the key, so one that
    is missing (a crash came between the two files) is written again, byte for byte.

    Raises ConfigError when a file cannot be read or written, is damaged, is open to other users,
    or when key and certificate do not belong together.
    """
    files = IdentityFiles.in_home(home)
    try:
        _make_home(home)
        if files.key.exists():
            key = _read_key(files.key)
        elif files.certificate.exists():
            raise ConfigError(
                f"The private key {files.key} is missing, while its certificate is there. "
                f"Restore the key from a backup, or remove {files.certificate} "
                "to make this a new device, and pair it again."
            )
        else:
            key = Ed25519PrivateKey.generate()
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write_durably(files.key, pem, mode=0o600)
            failpoints.reach("identity.key-written")
        if not files.certificate.exists():
            issued = _issue(key).public_bytes(Encoding.PEM)
            _write_durably(files.certificate, issued, mode=0o644)
            failpoints.reach("identity.certificate-written")
        certificate_der = _read_certificate(files.certificate, key)
    except OSError as error:
        raise ConfigError(
            f"The identity of this device in {home} cannot be read or written: {error.strerror}. "
            "Check the directory and its permissions, then start again."
        ) from error
    return Identity(
        device=device_of_certificate(certificate_der),
        certificate_der=certificate_der,
        private_key=key,
    )


def device_of_certificate(der: bytes) -> DeviceID:
    """The device that a certificate names. Raises ValueError unless it holds an Ed25519 key."""
    spki = _public_key(der).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return device_id_of_public_key(spki)


def verify(certificate_der: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the key of this certificate signed exactly `data`; False for any malformed input."""
    try:
        _public_key(certificate_der).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _public_key(der: bytes) -> Ed25519PublicKey:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError("the certificate holds a key of an unknown kind") from error
    except x509.InvalidVersion as error:  # which is no ValueError
        raise ValueError("the certificate is of an unknown version") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the certificate does not hold an Ed25519 key")
    return key


def _issue(key: Ed25519PrivateKey) -> x509.Certificate:
    """The certificate of a key: always the same bytes, since Ed25519 signs deterministically.

    CA:FALSE, or a peer that pins it would also accept whatever this key signs. It names no host
    and no user: it is shown to everyone who connects.
    """
    public_key = key.public_key()
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(public_key)
        .serial_number(1 + int.from_bytes(device_id_of_public_key(spki)[:15]))
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .sign(key, algorithm=None)
    )


def _read_key(path: Path) -> Ed25519PrivateKey:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"The private key {path} is open to other users of this machine (mode {mode:04o}). "
            f"If nobody else can have read it, run `chmod 600 {path}` and start again."
        )
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _damaged(path, "is not a private key that can be read") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path, "is not an Ed25519 key")
    return key


def _read_certificate(path: Path, key: Ed25519PrivateKey) -> bytes:
    try:
        certificate_der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(
            Encoding.DER
        )
        public_key = _public_key(certificate_der)
    except ValueError as error:
        raise _damaged(path, "is not a certificate that can be read") from error
    if public_key != key.public_key():
        raise _damaged(path, f"does not belong to the key {path.with_suffix('.key')}")
    return certificate_der


def _damaged(path: Path, finding: str) -> ConfigError:
    return ConfigError(
        f"{path} {finding}. Restore it from a backup, or move device.key and device.crt out of "
        f"{path.parent} to make this a new device, and pair it again."
    )


def _make_home(home: Path) -> None:
    if not home.is_dir():
        home.mkdir(mode=0o700, parents=True)
        _sync_directory(home.parent)


def _write_durably(path: Path, content: bytes, *, mode: int) -> None:
    """Bring `content` to `path` all or not at all; it is on disk when this returns.

    Always by the same name, so that what a crash leaves there does not stay for ever.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        failpoints.reach("identity.before-renaming")
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
