"""No one gets in who was not let in, everybody is told why, and nothing is said before."""

import contextlib
import datetime
import itertools
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from tests.e2e.device import Device
from tests.e2e.harness import Lab, everywhere, pair
from tests.e2e.processes import eventually

SECRETS = (b"taxreturns", b"salaries", b"adalovelace")
"""Names of a folder, a file and a device."""


@dataclass(slots=True)
class Heard:
    """All that came back over one connection."""

    raw: bytearray = field(default_factory=bytearray)
    plain: bytearray = field(default_factory=bytearray)
    certificate: bytes = b""
    ended: bool = False

    def everything(self) -> bytes:
        return bytes(self.raw + self.plain + self.certificate).lower()


def _stranger(directory: Path) -> Path:
    """A fresh key and self-signed certificate in one PEM file, of the kind that devices use."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2psync")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=100))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, None)
    )
    path = directory / "stranger.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def _context(certificate: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def _speak_tls(address: str, context: ssl.SSLContext, *, say: bytes) -> Heard:
    """Shake hands, say something, and listen until the other side hangs up or is silent."""
    heard = Heard()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing)
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        said = False
        while not heard.ended:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLError):
                if not said:
                    session.do_handshake()
                    heard.certificate = session.getpeercert(binary_form=True) or b""
                    session.write(say)
                    said = True
                heard.plain += session.read(65536)
            with contextlib.suppress(ConnectionError):
                connection.sendall(outgoing.read())
            heard.ended = not _listen(connection, heard, incoming)
    return heard


def _listen(connection: socket.socket, heard: Heard, incoming: ssl.MemoryBIO | None = None) -> bool:
    """Take what comes; False once the other side has ended the connection."""
    try:
        received = connection.recv(65536)
    except ConnectionError:
        return False
    heard.raw += received
    if incoming is not None:
        incoming.write(received)
    return bool(received)


def _secretive_device(lab: Lab) -> Device:
    ada = lab.device("adalovelace")
    ada.write("salaries.ods", "figures")
    ada.add_folder("taxreturns")
    eventually(lambda: ada.folder("taxreturns")["files"] == 1, within=15, what="the file is known")
    return ada


@pytest.mark.parametrize("dressed", ["with a certificate", "without a certificate"])
def test_a_stranger_is_refused_learns_nothing_and_is_logged(lab: Lab, dressed: str) -> None:
    ada = _secretive_device(lab)
    certificate = _stranger(lab.base) if dressed.startswith("with a") else None

    heard = _speak_tls(ada.address(), _context(certificate), say=b"\0\0\0\2\x91\xc0" * 20)

    assert heard.ended, "the connection was left open"
    assert heard.certificate, "there was no handshake to speak of"
    assert not heard.plain
    for secret in SECRETS:
        assert secret not in heard.everything()
    eventually(
        lambda: "not paired" in ada.log_text() or "refused" in ada.log_text().lower(),
        within=10,
        what="the refusal is in the log",
    )
    assert ada.status()["devices"] == []


def test_a_device_that_follows_another_protocol_learns_nothing(lab: Lab) -> None:
    ada = _secretive_device(lab)
    host, _, port = ada.address().rpartition(":")

    for opening in (b"GET / HTTP/1.0\r\n\r\n", b"\0" * 64, b"\x16\x03\x01\xff\xff" + b"x" * 400):
        heard = Heard()
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(opening)
            # No promise when, only that: whoever does not shake hands is not kept.
            while _listen(connection, heard):
                pass
        for secret in SECRETS:
            assert secret not in heard.everything()

    old = _context(None)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    heard = _speak_tls(ada.address(), old, say=b"hello")
    assert heard.ended
    assert not heard.certificate, "an old protocol was accepted"
    assert ada.status()["device"]["name"] == "adalovelace"


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"", b"\0\0\0\x40half", b"\x16\x03\x01\x02\x00\x01"])
def test_a_stranger_that_holds_many_connections_keeps_nobody_out(lab: Lab, said: bytes) -> None:
    ada, bob = lab.group("ada", "bob")
    cyd = lab.device("cyd")
    code = ada.new_code()
    host, _, port = ada.address().rpartition(":")
    with contextlib.ExitStack() as held:
        for number in range(300):
            source = (f"127.0.1.{1 + number % 60}", 0)
            sock = socket.create_connection((host, int(port)), timeout=5, source_address=source)
            held.enter_context(sock).sendall(said)

        assert ada.process is not None
        assert len(list(Path(f"/proc/{ada.process.pid}/fd").iterdir())) < 150
        ada.write("file", "synced meanwhile")
        everywhere([bob], "file", b"synced meanwhile")
        bob.stop()
        bob.start()
        eventually(lambda: bob.is_connected_to(ada), within=20, what="bob is connected again")
        joined = cyd.join(code, address=ada.address())

    assert joined.code == 0, str(joined)


def test_a_removed_device_is_refused_by_all_members_and_told_so(lab: Lab) -> None:
    ada, bob, cyd = lab.group("ada", "bob", "cyd")
    eventually(lambda: bob.is_connected_to(cyd), within=20, what="bob and cyd are connected")
    cyd.write("before", "the removal")
    everywhere([ada, bob], "before", b"the removal")
    cyd.stop()

    dry = ada.ok("device", "remove", "cyd", "--dry-run")
    assert "cyd" in dry.out
    assert ada.peer(cyd) is not None
    ada.ok("device", "remove", "cyd")
    eventually(lambda: ada.peer(cyd) is None and bob.peer(cyd) is None, within=15, what="both know")
    ada.write("after", "the removal")
    everywhere([bob], "after", b"the removal")
    cyd.start()
    cyd.write("from outside", "must not arrive")

    def told() -> bool:
        return any(
            word in (cyd.log_text() + cyd.ok("status").out).lower()
            for word in ("removed", "does not accept")
        )

    eventually(told, within=20, what="cyd is told that it was removed")
    eventually(
        lambda: any("cyd" in line or "not paired" in line for line in _refusals(ada, bob)),
        within=20,
        what="the members log whom they refused",
    )
    assert cyd.read("after") is None
    assert ada.read("from outside") is None
    assert bob.read("from outside") is None
    assert not ada.is_connected_to(cyd) if ada.peer(cyd) else True


def _refusals(*devices: Device) -> list[str]:
    return [
        line
        for device in devices
        for line in device.log_text().splitlines()
        if "refus" in line.lower() or "not paired" in line.lower()
    ]


def test_a_removed_device_can_be_paired_again(lab: Lab) -> None:
    ada, bob = lab.group("ada", "bob")
    ada.write("one", "1")
    everywhere([bob], "one", b"1")
    ada.ok("device", "remove", "bob")
    eventually(lambda: ada.peer(bob) is None, within=10, what="bob is gone")

    pair(ada, bob)

    ada.write("two", "2")
    ada.cli("folder", "add", ada.root, "--name", "shared", "--with", "bob")
    eventually(lambda: bob.read("two") == b"2", within=20, what="bob takes part again")


def _wrong_codes(code: str) -> list[str]:
    """Codes of the right shape and number, with the words in another order."""
    number, *words = code.split("-")
    orders = ["-".join([number, *order]) for order in itertools.permutations(words)]
    return [other for other in dict.fromkeys(orders) if other != code]


def test_a_wrong_code_is_refused_and_the_third_one_ends_the_window(lab: Lab) -> None:
    ada, bob = lab.device("ada"), lab.device("bob")
    with ada.open_pairing() as window:
        for wrong in _wrong_codes(window.code)[:3]:
            result = bob.join(wrong, address=ada.address())
            assert result.code == 5, str(result)
            assert "code" in result.err
            assert "Traceback" not in result.said

        right = bob.join(window.code, address=ada.address())
        shown = window.outcome()

    assert right.code == 5, str(right)
    assert shown.code == 5, str(shown)
    assert "three" in shown.err or "3" in shown.err or "attempts" in shown.err, shown.err
    assert ada.status()["devices"] == bob.status()["devices"] == []
    assert ada.status()["pairing"] is None
    assert len(_refusals(ada)) + ada.log_text().lower().count("wrong") >= 3, ada.log_text()


def test_a_right_code_after_a_wrong_one_pairs(lab: Lab) -> None:
    ada, bob = lab.device("ada"), lab.device("bob")
    with ada.open_pairing() as window:
        assert bob.join(_wrong_codes(window.code)[0], address=ada.address()).code == 5
        assert bob.join(window.code, address=ada.address()).code == 0
        shown = window.outcome()

    assert shown.code == 0, str(shown)
    assert "bob" in shown.out
    eventually(lambda: ada.is_connected_to(bob), within=15, what="they are connected")


def test_a_code_works_once(lab: Lab) -> None:
    ada, bob, cyd = lab.device("ada"), lab.device("bob"), lab.device("cyd")
    code = ada.new_code()
    assert bob.join(code, address=ada.address()).code == 0

    again = cyd.join(code, address=ada.address())

    assert again.code == 5, str(again)
    assert cyd.status()["devices"] == []


def test_an_expired_code_is_refused_and_said_on_both_sides(lab: Lab) -> None:
    ada, bob = lab.prepare("ada"), lab.device("bob")
    ada.configure(pairing_ttl_s=1)
    ada.start()
    with ada.open_pairing() as window:
        shown = window.outcome(within=15)
        late = bob.join(window.code, address=ada.address())

    assert shown.code == 6, str(shown)
    assert "expired" in shown.err
    assert late.code == 5, str(late)
    assert "expired" in late.err or "no pairing" in late.err.lower() or "window" in late.err
    assert "expired" in ada.log_text()
    assert ada.status()["devices"] == bob.status()["devices"] == []


def test_a_key_file_pairs_a_fleet_and_a_different_one_does_not(lab: Lab) -> None:
    ada, bob, cyd = lab.device("ada"), lab.device("bob"), lab.device("cyd")
    key, other = lab.base / "fleet.key", lab.base / "other.key"
    ada.ok("pair", "new", "--no-wait", "--key-file", key)
    assert key.stat().st_mode & 0o077 == 0
    other.write_text(key.read_text()[::-1].strip() + "\n")
    other.chmod(0o600)
    where = ("--address", ada.address())

    refused = cyd.cli("pair", "join", "--key-file", other, *where)
    assert refused.code == 5, str(refused)
    bob.ok("pair", "join", "--key-file", key, *where)

    assert ada.peer(bob) is not None
    assert ada.peer(cyd) is None


def test_the_homes_secrets_are_for_their_owner_only(lab: Lab) -> None:
    ada = _secretive_device(lab)

    assert ada.home.stat().st_mode & 0o077 == 0
    for path in ada.home.rglob("*"):
        if "key" in path.name or path.suffix == ".sock":
            assert path.lstat().st_mode & 0o077 == 0, path
