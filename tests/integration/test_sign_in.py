"""Signing in: the ways of OAuth2 against a server that checks them for real (signatures, audience, age, one use); no secret is shown."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from fhir_adapters.errors import PalmaresError
from tests.servers.faults import Faults
from tests.servers.medplum_server import Server, medplum, needs_server
from tests.web_helpers import extract, records, settings

pytestmark = needs_server()
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP384R1())


def jwk(key: Any, private: bool) -> dict[str, Any]:
    way: Any = RSAAlgorithm if key is RSA else ECAlgorithm
    held: dict[str, Any] = json.loads(way.to_jwk(key if private else key.public_key()))
    return held | {"kid": "test-key"}


def pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(scope="module")
def held() -> Iterator[Server]:
    with medplum(auth={"client": "palmares"}) as running:
        running.load(records(5))
        yield running


@pytest.fixture
def server(held: Server) -> Iterator[Server]:
    yield held
    held.options(auth={"client": "palmares"})


def connect(monkeypatch: pytest.MonkeyPatch, **connection: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EHR", json.dumps({"login": "palmares"} | connection))


def read(server: Server, out: Path, auth: str, **more: Any) -> int:
    given = settings(more.pop("url", server.url), auth=auth, connection="ehr", types=["Patient"], **more)
    return sum(extract(out, given).resources.values())


@pytest.mark.parametrize("in_body", [False, True])
def test_client_credentials(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_body: bool) -> None:
    server.options(auth={"client": "palmares", "secret": "SECRET:/ü", "inBody": in_body})
    connect(monkeypatch, password="SECRET:/ü")
    assert read(server, tmp_path / "out", "client-credentials") == 5


@pytest.mark.parametrize(("key", "form"), [(RSA, "jwk"), (EC, "jwk set"), (RSA, "pem"), (EC, "pem"), (EC, "file")])
def test_smart_backend_services(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: Any, form: str
) -> None:
    server.options(auth={"client": "palmares", "jwk": jwk(key, private=False)})
    extra: dict[str, Any] = {"private_key": jwk(key, private=True)}
    if form == "jwk set":
        extra = {"private_key": {"keys": [jwk(key, private=False), jwk(key, private=True)]}}
    elif form == "pem":
        extra = {"private_key": pem(key), "key_id": "test-key"}
    elif form == "file":
        (tmp_path / "key.json").write_text(json.dumps(jwk(key, private=True)))
        (tmp_path / "key.json").chmod(0o600)
        extra = {"private_key_file": str(tmp_path / "key.json")}
    connect(monkeypatch, extra=extra)
    assert read(server, tmp_path / "out", "smart-backend") == 5


def test_a_token_that_ends_in_the_middle_is_renewed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.options(auth={"client": "palmares", "secret": "SECRET"})
    connect(monkeypatch, password="SECRET")
    with Faults(server.port) as proxy:
        proxy.add(r"/Patient\?.*_offset", status=401, times=1)
        assert read(server, tmp_path / "out", "client-credentials", url=proxy.url, page=2) == 5
        assert proxy.asked("/token", "POST") == 2


@pytest.mark.parametrize(
    ("auth", "connection", "code"),
    [
        ("client-credentials", {"password": "SECRET-other"}, "E-FHIR-02"),
        ("bearer", {"password": "SECRET-other"}, "E-FHIR-02"),
        ("basic", {"password": "SECRET-other"}, "E-FHIR-02"),
        ("none", {}, "E-FHIR-02"),
        ("client-credentials", {}, "E-FHIR-10"),
        ("smart-backend", {}, "E-FHIR-10"),
        ("smart-backend", {"extra": {"private_key": "SECRET"}}, "E-FHIR-10"),
        ("smart-backend", {"extra": {"private_key_file": "/nowhere/SECRET"}}, "E-FHIR-10"),
        ("smart-backend", {"extra": {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}}, "E-FHIR-10"),
        ("smart-backend", {"extra": {"private_key": pem(RSA), "key_id": "another"}}, "E-FHIR-02"),
        ("password", {}, "E-SRC-02"),
    ],
)
def test_what_does_not_open(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    auth: str,
    connection: dict[str, Any],
    code: str,
) -> None:
    server.options(auth={"client": "palmares", "secret": "SECRET", "jwk": jwk(RSA, private=False)})
    connect(monkeypatch, **connection)
    with caplog.at_level(logging.DEBUG), pytest.raises(PalmaresError) as caught:
        read(server, tmp_path / "out", auth)
    assert caught.value.code == code
    assert "SECRET" not in str(caught.value) and "SECRET" not in caplog.text


def test_a_key_that_others_can_read(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pem").write_text(pem(RSA))
    (tmp_path / "key.pem").chmod(0o644)
    connect(monkeypatch, extra={"private_key_file": str(tmp_path / "key.pem")})
    with pytest.raises(PalmaresError) as caught:
        read(server, tmp_path / "out", "smart-backend")
    assert caught.value.code == "E-KEY-02"


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "no url", '{"extra": 5}'])
def test_a_connection_that_is_none(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_EHR", raising=False)
    if text is not None:
        monkeypatch.setenv("AIRFLOW_CONN_EHR", text)
    with pytest.raises(PalmaresError) as caught:
        read(server, tmp_path / "out", "bearer")
    assert caught.value.code == "E-FHIR-10"


def certificate(folder: Path) -> Path:
    """A PEM file of localhost that signs itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(RSA.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(RSA, SHA256())
    )
    (folder / "server.pem").write_text(pem(RSA) + made.public_bytes(Encoding.PEM).decode())
    (folder / "ca.pem").write_bytes(made.public_bytes(Encoding.PEM))
    return folder / "server.pem"


def test_a_certificate_is_held_against_the_hospitals_authority(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.options(auth={"client": "palmares", "secret": "SECRET"})
    connect(monkeypatch, password="SECRET")
    with Faults(server.port, certificate=certificate(tmp_path)) as proxy:
        token = {"token_url": proxy.url + "/token", "link_base": proxy.url.replace("https", "http")}
        with pytest.raises(PalmaresError) as caught:
            read(server, tmp_path / "out", "client-credentials", url=proxy.url, **token)
        assert caught.value.code == "E-FHIR-13"
        assert not proxy.requests, "no request, and no secret, goes to a server that is not known"
        ca = str(tmp_path / "ca.pem")
        assert read(server, tmp_path / "out", "client-credentials", url=proxy.url, ca_file=ca, page=2, **token) == 5


def test_a_connection_as_a_url(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.options(auth={"client": "palmares", "secret": "SECRET/1"})
    monkeypatch.setenv("AIRFLOW_CONN_EHR", "http://palmares:SECRET%2F1@ehr")
    assert read(server, tmp_path / "out", "client-credentials") == 5
