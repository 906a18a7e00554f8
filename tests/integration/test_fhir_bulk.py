"""A real `$export` (Medplum's store behind the test server's face), with the faults of networks and servers in between.

After each fault, what landed is what the server holds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.faults import Faults
from tests.servers.medplum_server import Server, medplum, needs_server
from tests.web_helpers import NAME, TYPES, expected, extract, holds_nothing_of, landed, records, settings

pytestmark = needs_server()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with medplum(exportRows=50) as running:
        running.load(records(24))
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[Faults]:
    with Faults(server.port) as running:
        yield running


def test_all_of_it(server: Server, tmp_path: Path) -> None:
    done = extract(tmp_path / "out", settings(server.url, "fhir_bulk", level="system"))
    assert landed(tmp_path / "out", tmp_path / "landed") == expected(server.holds(*TYPES))
    assert done.resources == {"Condition": 24, "Medication": 1, "MedicationRequest": 24, "Observation": 120, "Patient": 24}
    assert done.full
    assert not list(tmp_path.glob(".*spool"))
    holds_nothing_of(tmp_path, NAME, "MRN-")
