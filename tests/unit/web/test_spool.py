"""The spool: whatever moment a run was killed at, what the journal says is there, whole, and nothing else."""

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.spool import Strand, opened
from fhir_adapters.pseudonyms import SiteKey

KEY = SiteKey(bytes(range(32)))

PAGES = [(b'{"id":"1"}\n{"id":"2"}\n', b"m\tA\t1\t\nm\tA\t2\t\n"), (b"", b""), (b'{"id":"3"}\n', b"m\tA\t3\t\n")]


@given(cuts=st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 400)))
@hypothesis(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_off_anywhere(tmp_path_factory: pytest.TempPathFactory, cuts: tuple[int, int, int]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    strand = Strand(folder, "A")
    for number, (lines, ids) in enumerate(PAGES):
        strand.append(lines, ids, page=number)
    strand.close()
    for path, keep in zip((strand.data, strand.ids, folder / "A.journal"), cuts, strict=True):
        path.write_bytes(path.read_bytes()[:keep])
    again = Strand(folder, "A")
    pages = [entry["page"] for entry in again.entries]
    assert pages == list(range(len(pages)))
    assert again.data.read_bytes() == b"".join(PAGES[one][0] for one in pages)
    assert again.ids.read_bytes() == b"".join(PAGES[one][1] for one in pages)
    again.append(b'{"id":"4"}\n', b"m\tA\t4\t\n", page=len(pages))
    again.close()
    assert [entry["page"] for entry in Strand(folder, "A").entries] == [*pages, len(pages)]


def test_it_stays_for_the_same_run_only(tmp_path: Path) -> None:
    out = tmp_path / "1-fhir_server"
    with pytest.raises(ZeroDivisionError), opened(out, {"of": 1}) as spool:
        strand = spool.strand("Patient")
        strand.append(b"{}\n", b"m\tPatient\t1\t\n", next="x")
        strand.close()
        spool.note(mark="2024")
        raise ZeroDivisionError
    assert stat.S_IMODE((tmp_path / ".1-fhir_server.spool").stat().st_mode) == 0o700
    with opened(out, {"of": 1}) as spool:
        assert spool.notes["mark"] == "2024"
        assert (spool.strand("Patient").last or {})["next"] == "x"
    with opened(out, {"of": 2}) as spool:
        assert "mark" not in spool.notes
        assert spool.strand("Patient").last is None


ADDRESS = "https://fhir.example/Observation?patient=Patient/MRN88776655&page=2"


def test_no_address_lies_on_the_disk(tmp_path: Path) -> None:
    """Where to go on, a job and its files: the hospital's addresses name patients by their record numbers."""
    out, run = tmp_path / "out", {"settings": {"search": {"Patient": "identifier=MRN88776655"}}}
    manifest = {"at": "2024", "items": [{"url": ADDRESS}]}
    with pytest.raises(ZeroDivisionError), opened(out, run, KEY) as spool:
        strand = spool.strand("Observation")
        strand.append(b"{}\n", b"m\tObservation\t1\t\n", next=ADDRESS)
        strand.append(b"{}\n", b"m\tObservation\t2\t\n", next=None)
        strand.close()
        spool.note(mark="2024", status=ADDRESS, manifest=manifest)
        raise ZeroDivisionError
    for path in (tmp_path / ".out.spool").iterdir():
        assert b"88776655" not in path.read_bytes(), path.name
    with opened(out, run, KEY) as spool:
        assert [one["next"] for one in spool.strand("Observation").entries] == [ADDRESS, None]
        assert (spool.notes["status"], spool.notes["manifest"], spool.notes["mark"]) == (ADDRESS, manifest, "2024")
    # another key reads nothing of it: the run begins anew
    with opened(out, run, SiteKey(b"x" * 32)) as spool:
        assert set(spool.notes) == {"run"}
        assert spool.strand("Observation").entries == []


def test_what_was_changed_on_the_disk_is_not_believed(tmp_path: Path) -> None:
    strand = Strand(tmp_path, "A", KEY)
    strand.append(b"{}\n", b"", next=ADDRESS)
    strand.close()
    journal = tmp_path / "A.journal"
    journal.write_bytes(journal.read_bytes().replace(b'"next":"', b'"next":"AAAA'))
    assert Strand(tmp_path, "A", KEY).entries == []


@given(text=st.text(max_size=200))
def test_what_is_sealed_comes_back(text: str) -> None:
    assert KEY.unsealed(KEY.sealed(text)) == text
    assert KEY.sealed(text) != KEY.sealed(text)


def test_a_torn_note_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path / "out", {}) as spool:
        spool.note(mark="2024")
    (tmp_path / ".out.spool" / "spool.json").write_text('{"run":')
    with opened(tmp_path / "out", {}) as spool:
        assert set(spool.notes) == {"run"}


def test_two_runs_at_once(tmp_path: Path) -> None:
    with opened(tmp_path / "out", {}), pytest.raises(PalmaresError) as caught, opened(tmp_path / "out", {}):
        pass
    assert caught.value.code == "E-SRC-07"
