"""The contexts by themselves; what they do to real connections is in test_link."""

import ssl
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from p2psync.errors import ConfigError
from p2psync.net.identity import IdentityFiles
from p2psync.net.tls import client_context, server_context
from tests.net.devices import make_device

Factory = Callable[[IdentityFiles, Collection[bytes]], ssl.SSLContext]
both_roles = pytest.mark.parametrize("factory", [server_context, client_context])


@both_roles
def test_only_tls_1_3_with_certificates_on_both_sides(tmp_path: Path, factory: Factory) -> None:
    context = factory(make_device(tmp_path).files, ())
    assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert not context.check_hostname


@both_roles
def test_no_session_can_be_resumed(tmp_path: Path, factory: Factory) -> None:
    context = factory(make_device(tmp_path).files, ())
    assert ssl.OP_NO_TICKET in context.options
    if factory is server_context:
        assert context.num_tickets == 0


@both_roles
def test_exactly_the_peers_are_trusted_and_no_authority_of_the_system(
    tmp_path: Path, factory: Factory
) -> None:
    ours, one, other = (make_device(tmp_path / name) for name in ("ours", "one", "other"))
    assert factory(ours.files, ()).cert_store_stats()["x509"] == 0
    context = factory(ours.files, [one.certificate, other.certificate])
    assert context.cert_store_stats() == {"x509": 2, "crl": 0, "x509_ca": 0}


@both_roles
@pytest.mark.parametrize("unreadable", [b"", b"garbage", b"0\x82\x01\x00"])
def test_one_unreadable_certificate_does_not_keep_out_the_others(
    tmp_path: Path, factory: Factory, unreadable: bytes
) -> None:
    ours, peer = (make_device(tmp_path / name) for name in ("ours", "peer"))
    context = factory(ours.files, [unreadable, peer.certificate])
    assert context.cert_store_stats()["x509"] == 1


@both_roles
def test_files_that_are_missing_or_do_not_match_are_reported(
    tmp_path: Path, factory: Factory
) -> None:
    ours, other = (make_device(tmp_path / name) for name in ("ours", "other"))
    mixed = IdentityFiles(key=ours.files.key, certificate=other.files.certificate)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        factory(mixed, ())
    ours.files.key.unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        factory(ours.files, ())
