"""palmares site check against sources that are servers, and that none of them lets her through: FHIR search, $export, DICOMweb, C-FIND, REDCap."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fhir_adapters.pseudonyms import SiteKey
from omop_etl.config import load_site
from omop_etl.onboarding import phi_check
from omop_etl.onboarding.check import check_site, lines
from omop_etl.stages import SitePlace, extract, land, validate
from tests.dicom_helpers import instance
from tests.dicom_servers import needs_orthanc, orthanc, store
from tests.planted import KNOWN, PLANTED, TRACES, sound_resources, traces
from tests.servers.medplum_server import medplum, needs_server
from tests.servers.redcap import TOKEN, Redcap, serving

pytestmark = [needs_server(), needs_orthanc]
NAME, NUMBER = PLANTED["name"], PLANTED["record-number"]
MAP = """
[lists.sesso]
1 = "female"
[[table]]
form = "anagrafica"
[[table.resource]]
type = "Patient"
patient = "cartella"
fill = [
  { column = "sesso", element = "gender", as = "list", list = "sesso" },
  { column = "nato_il", element = "birthDate", as = "month" },
]
"""
FIELDS = {
    "record_id": "text",
    "cartella": "text",
    "cognome": "text",
    "sesso": "radio",
    "nato_il": "text",
    "note": "notes",
}
ROW = {
    "record_id": "1",
    "cartella": NUMBER,
    "cognome": NAME,
    "sesso": "1",
    "nato_il": "1947-01-01",
    "note": " ".join(PLANTED.values()),
}


def project() -> Redcap:
    metadata = [
        {"field_name": name, "form_name": "anagrafica", "section_header": "", "field_type": kind, "field_label": NAME,
         "select_choices_or_calculations": "1, Femmina" if kind == "radio" else "", "identifier": ""}
        for name, kind in FIELDS.items()
    ]  # fmt: skip
    return Redcap(metadata, {"is_longitudinal": 0, "has_repeating_instruments_or_events": 0}, [ROW])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SitePlace]:
    """A site whose five sources are servers that hold her."""
    folder = tmp_path_factory.mktemp("site")
    SiteKey.create(folder / "prova.key")
    (folder / "map.toml").write_text(MAP)
    with ExitStack() as stack:
        fhir = stack.enter_context(medplum())
        fhir.load(one for one in sound_resources() if one["resourceType"] != "RelatedPerson")
        pacs = stack.enter_context(orthanc(folder / "orthanc"))
        planted = {
            "PatientName": NAME.replace(" ", "^"),
            "PatientID": NUMBER,
            "AccessionNumber": "ACC44332211",
            "StudyDescription": NAME,
        }
        assert store(pacs, [instance(number, **planted) for number in (1, 2)]) == 2
        ecrf = stack.enter_context(serving(project()))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AIRFLOW_CONN_ECRF", json.dumps({"password": TOKEN}))
        (folder / "prova.toml").write_text(f"""
name = "Prova"
key_file = "prova.key"
[[source]]
kind = "fhir_server"
url = "{fhir.url}"
[[source]]
kind = "fhir_bulk"
url = "{fhir.url}"
level = "system"
[[source]]
kind = "dicomweb"
url = "{pacs.url}"
[[source]]
kind = "dicom_query"
host = "127.0.0.1"
port = {pacs.port}
called_ae = "{pacs.title}"
[[source]]
kind = "redcap"
url = "{ecrf.url}"
connection = "ecrf"
map = "map.toml"
""")
        yield SitePlace(tmp_path_factory.mktemp("home"), load_site("prova", folder))


def test_each_is_tried_and_shows_nothing_of_her(place: SitePlace) -> None:
    found = check_site(place.site)
    assert found.ok, [one.error for one in found.sources]
    for one in found.sources:
        assert one.resources, one.kind
    server, export = found.sources[:2]
    assert server.resources["Observation"] == export.resources["Observation"] == 5
    assert (server.first, server.last) == ("2020-01-10", "2021-03-01")
    assert any(system.system == "http://loinc.org" and system.mapped for system in server.systems)
    assert server.undeclared
    assert traces("\n".join(lines(found)) + repr(found)) == []


def test_none_lets_her_through(place: SitePlace) -> None:
    outs = [extract(place, number)["out"] for number in range(len(place.site.sources))]
    land(place, outs)
    validate(place)
    searched = phi_check([place.home], KNOWN)
    assert searched.findings == () and searched.unread == ()
    for path in place.home.rglob("*"):
        if path.is_file():
            assert [trace for trace in TRACES if trace.encode() in path.read_bytes().lower()] == [], path.name


def test_a_server_that_is_not_there(place: SitePlace, tmp_path: Path) -> None:
    SiteKey.create(tmp_path / "prova.key")
    (tmp_path / "prova.toml").write_text(
        'name = "x"\nkey_file = "prova.key"\n[[source]]\nkind = "fhir_server"\nurl = "http://127.0.0.1:9/fhir"\ntries = 1\n'
    )
    (one,) = check_site(load_site("prova", tmp_path)).sources
    assert one.error.startswith("E-FHIR-")
