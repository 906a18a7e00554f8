"""The client's small rules: whose host, how long to wait, what a message may show."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.base import open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.issues import issues, words
from fhir_adapters.fhir_web.web import Web, origin, retry_after
from fhir_adapters.pseudonyms import SiteKey

KEY = SiteKey(b"a key for tests, thirty-two bytes or more")
NAME = "Bianchistorta"


def web(url: str = "https://ehr.example/r4", **more: Any) -> Web:
    return Web({**_DEFAULTS, "url": url, **more})


_DEFAULTS = {
    "link_base": "", "ca_file": None, "allow_http": False, "parallel": 2, "tries": 2, "patience_minutes": 1, "timeout_seconds": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Web:
    return web()


@pytest.mark.parametrize(
    ("link", "own"),
    [
        ("https://ehr.example/r4/Patient?page=2", True),
        ("https://EHR.example:443/other?page=2", True),
        ("?page=2", True),
        ("/r4?_getpages=1", True),
        ("http://ehr.example/r4/Patient", False),
        ("https://ehr.example:8443/r4/Patient", False),
        ("https://ehr.example.evil/r4", False),
        ("https://ehr.example@evil/r4", False),
        ("https://user:pw@ehr.example/r4", False),
        ("//evil/r4", False),
        ("file:///etc/passwd", False),
        ("https://[bad/r4", False),
        ("https://ehr.example:99999/r4", False),
    ],
)
def test_whose_host(client: Web, link: str, own: bool) -> None:
    if own:
        assert origin(client.own(link, "https://ehr.example/r4/Patient")) == ("https", "ehr.example", 443)
    else:
        with pytest.raises(PalmaresError) as caught:
            client.own(link, "https://ehr.example/r4/Patient")
        assert caught.value.code in ("E-FHIR-03", "E-FHIR-04")


@given(st.text(max_size=60))
def test_no_link_leads_elsewhere(link: str) -> None:
    client = web_once()
    try:
        found = client.own(link, "https://ehr.example/r4/Patient")
    except PalmaresError:
        return
    assert origin(found) == ("https", "ehr.example", 443)


_ONCE: list[Web] = []


def web_once() -> Web:
    if not _ONCE:
        _ONCE.append(web())
    return _ONCE[0]


def test_what_a_message_shows(client: Web) -> None:
    url = f"https://ehr.example/r4/Patient/{NAME}/_history?name={NAME}&_count=5&{NAME}%201=2"
    assert client.shown(url) == "Patient/…/_history?name&_count&…"
    assert client.shown(f"https://{NAME}.example/r4/x") == "another host: …/…"
    assert client.shown("https://ehr.example/r4") == "the server"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "9" * 40}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:10 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date_without_the_servers_clock() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after({"Retry-After": at}) or 0) <= 30


def test_an_outcome_says_codes_only() -> None:
    issue = {"severity": "error", "code": "too-costly", "diagnostics": NAME}
    document = {
        "issue": [issue, issue, {"severity": "warning", "code": "lock-error"}, {"severity": NAME, "code": NAME}, NAME]
    }
    assert words(issues(document)) == "error too-costly (2)"
    assert words(issues({"issue": [{"severity": NAME, "code": [NAME]}]})) == "unknown unknown (1)"
    assert not issues([]) and not issues({"issue": NAME})


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"url": "ftp://ehr.example"}, "E-SRC-02"),
        ({"url": "ehr.example/r4"}, "E-SRC-02"),
        ({"url": "https://user:SECRET@ehr.example/r4"}, "E-SRC-02"),
        ({"url": "https://ehr.example/r4?token=SECRET"}, "E-SRC-02"),
        ({"url": "http://ehr.example/r4"}, "E-FHIR-12"),
        ({"parallel": 0}, "E-SRC-02"),
        ({"tries": 0}, "E-SRC-02"),
        ({"types": ["SECRET"]}, "E-SRC-02"),
        ({"most_deleted": 2}, "E-SRC-02"),
        ({"overlap_minutes": -1}, "E-SRC-02"),
        ({"pseudonyms": "SECRET"}, "E-SRC-02"),
    ],
)
@pytest.mark.parametrize("kind", ["fhir_server", "fhir_bulk"])
def test_settings_that_do_not_fit(tmp_path: Path, kind: str, settings: dict[str, Any], code: str) -> None:
    with pytest.raises(PalmaresError) as caught:
        open_source({"kind": kind, "url": "https://ehr.example/r4", **settings}, folder=tmp_path, key=KEY)
    assert caught.value.code == code
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("fhir_server", {"search": {"SECRET": "x"}}),
        ("fhir_server", {"search": {"Patient": 5}}),
        ("fhir_server", {"include": {"Patient": "SECRET"}}),
        ("fhir_server", {"deletes": "SECRET"}),
        ("fhir_server", {"page": 0}),
        ("fhir_bulk", {"level": "SECRET"}),
        ("fhir_bulk", {"level": "group"}),
        ("fhir_bulk", {"group": "SECRET"}),
        ("fhir_bulk", {"poll_hours": 0}),
    ],
)
def test_settings_of_a_kind_that_do_not_fit(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    with pytest.raises(PalmaresError) as caught:
        open_source({"kind": kind, "url": "https://ehr.example/r4", **settings}, folder=tmp_path, key=KEY)
    assert caught.value.code == "E-SRC-02"
    assert "SECRET" not in str(caught.value)


def test_without_a_key_only_where_the_hospital_has_replaced_the_ids(tmp_path: Path) -> None:
    settings = {"kind": "fhir_server", "url": "https://ehr.example/r4"}
    with pytest.raises(PalmaresError) as caught:
        open_source(settings, folder=tmp_path)
    assert caught.value.code == "E-SRC-03"
    assert open_source({**settings, "pseudonyms": "hospital"}, folder=tmp_path).kind == "fhir_server"


def test_a_certificate_authority_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("SECRET")
    with pytest.raises(PalmaresError) as caught:
        web(ca_file=tmp_path / "ca.pem")
    assert caught.value.code == "E-SRC-02" and "SECRET" not in str(caught.value)
