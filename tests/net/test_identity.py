"""Key and certificate: made once, kept whole, never replaced."""

import contextlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from p2psync.errors import ConfigError
from p2psync.net.identity import (
    IdentityFiles,
    device_of_certificate,
    load_or_create_identity,
    verify,
)


def test_an_identity_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first = load_or_create_identity(tmp_path / "home")
    second = load_or_create_identity(tmp_path / "home")
    assert first.device == second.device
    assert first.certificate_der == second.certificate_der
    assert verify(first.certificate_der, second.sign(b"data"), b"data")


def test_a_key_that_a_power_cut_left_half_written_does_not_stay(tmp_path: Path) -> None:
    for name in (".device.key.new", ".device.crt.new"):
        (tmp_path / name).write_bytes(b"half of it")
    load_or_create_identity(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"device.key", "device.crt"}


def test_two_homes_are_two_devices(tmp_path: Path) -> None:
    one, other = (load_or_create_identity(tmp_path / name) for name in ("one", "other"))
    assert one.device != other.device


def test_the_home_and_the_key_are_closed_to_others_and_nothing_else_is_left(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    load_or_create_identity(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "device.key").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in home.iterdir()} == {"device.key", "device.crt"}


def test_the_certificate_can_sign_no_others_and_tells_nothing_about_the_owner(
    tmp_path: Path,
) -> None:
    certificate = x509.load_der_x509_certificate(load_or_create_identity(tmp_path).certificate_der)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert certificate.subject.rfc4514_string() == "CN=p2psync"
    assert certificate.issuer.rfc4514_string() == "CN=p2psync"
    assert certificate.not_valid_before_utc.isoformat() == "1970-01-01T00:00:00+00:00"
    assert certificate.not_valid_after_utc.isoformat() == "9999-12-31T23:59:59+00:00"


def test_the_private_key_is_not_shown(tmp_path: Path) -> None:
    assert "private" not in repr(load_or_create_identity(tmp_path)).lower()


def test_a_crash_between_key_and_certificate_keeps_the_identity(tmp_path: Path) -> None:
    before = load_or_create_identity(tmp_path)
    (tmp_path / "device.crt").unlink()
    assert load_or_create_identity(tmp_path).certificate_der == before.certificate_der


def test_a_crash_before_the_key_is_in_place_leaves_no_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", power_cut)
        with pytest.raises(ConfigError, match="Input/output error"):
            load_or_create_identity(tmp_path)
    assert list(tmp_path.iterdir()) == []
    load_or_create_identity(tmp_path)


def test_a_certificate_without_its_key_is_reported(tmp_path: Path) -> None:
    load_or_create_identity(tmp_path)
    (tmp_path / "device.key").unlink()
    with pytest.raises(ConfigError, match=r"device\.key is missing"):
        load_or_create_identity(tmp_path)
    assert not (tmp_path / "device.key").exists()


@pytest.mark.parametrize("name", ["device.key", "device.crt"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_a_damaged_file_is_reported_and_left_alone(
    tmp_path: Path, name: str, content: bytes
) -> None:
    load_or_create_identity(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name} is not a"):
        load_or_create_identity(tmp_path)
    assert (tmp_path / name).read_bytes() == content


def test_a_key_and_a_certificate_of_different_devices_are_reported(tmp_path: Path) -> None:
    load_or_create_identity(tmp_path / "one")
    load_or_create_identity(tmp_path / "other")
    (tmp_path / "one" / "device.key").replace(tmp_path / "other" / "device.key")
    with pytest.raises(ConfigError, match="does not belong to the key"):
        load_or_create_identity(tmp_path / "other")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_or_create_identity(tmp_path)
    (tmp_path / "device.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_identity(tmp_path)


def test_a_key_behind_a_password_or_of_another_kind_is_reported(tmp_path: Path) -> None:
    identity = load_or_create_identity(tmp_path)
    locked = identity.private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for pem in (locked, curve):
        (tmp_path / "device.key").write_bytes(pem)
        with pytest.raises(ConfigError, match=r"device\.key is not"):
            load_or_create_identity(tmp_path)


def test_a_home_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be read or written"):
        load_or_create_identity(tmp_path / "file" / "home")


def test_a_signature_holds_for_its_data_and_its_signer_only(tmp_path: Path) -> None:
    one, other = (load_or_create_identity(tmp_path / name) for name in ("one", "other"))
    signature = one.sign(b"data")
    assert verify(one.certificate_der, signature, b"data")
    assert not verify(one.certificate_der, signature, b"date")
    assert not verify(one.certificate_der, signature[:-1], b"data")
    assert not verify(one.certificate_der, b"", b"data")
    assert not verify(other.certificate_der, signature, b"data")


@given(st.binary(max_size=400))
def test_bytes_that_are_no_certificate_are_refused_and_verify_nothing(der: bytes) -> None:
    with pytest.raises(ValueError):
        device_of_certificate(der)
    assert not verify(der, bytes(64), b"data")


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_a_certificate_with_any_byte_changed_names_a_device_or_is_refused(tmp_path: Path) -> None:
    der = load_or_create_identity(tmp_path).certificate_der
    for at in range(len(der)):
        # 1 makes a version that `cryptography` refuses with an error of its own kind.
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            changed = der[:at] + bytes([value]) + der[at + 1 :]
            with contextlib.suppress(ValueError):
                device_of_certificate(changed)
            verify(changed, bytes(64), b"data")


def test_the_files_are_where_the_home_is(tmp_path: Path) -> None:
    files = IdentityFiles.in_home(tmp_path)
    assert (files.key, files.certificate) == (tmp_path / "device.key", tmp_path / "device.crt")
