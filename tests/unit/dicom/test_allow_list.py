"""The allow-list says what DICOM says: tags, keywords, VRs, codes; and each reason has its explanation."""

import csv
import re
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.sr import _snomed_dict
from pydicom.sr._concepts_dict import concepts

import fhir_adapters.dicom
from fhir_adapters import allow_list
from fhir_adapters.allow_list import AllowListError
from fhir_adapters.outcomes import outcome_of

FOLDER = Path(fhir_adapters.dicom.__file__).parent
# names that stand for an element inside a sequence
INSIDE = {
    "SpecimenStain": "ConceptCodeSequence",
    "SpecimenType": "SpecimenTypeCodeSequence",
    "SpecimenSite": "PrimaryAnatomicStructureSequence",
    "SpecimenCollected": "SpecimenPreparationSequence",
    "SpecimenReceived": "SpecimenPreparationSequence",
    "SharedPixelSpacing": "PixelSpacing",
    "SharedSliceThickness": "SliceThickness",
    "RadionuclideCode": "RadionuclideCodeSequence",
    "RadiopharmaceuticalCode": "RadiopharmaceuticalCodeSequence",
}


@pytest.mark.parametrize("keyword", sorted(allow_list.dicom().keep))
def test_tag_keyword_and_vr(keyword) -> None:
    element = allow_list.dicom().keep[keyword]
    assert keyword_for_tag(element.path[-1]) == INSIDE.get(keyword, keyword)
    assert dictionary_VR(element.path[-1]).split(" or ")[0] == element.vr
    assert all(dictionary_VR(tag) == "SQ" for tag in element.path[:-1])
    assert element.why


def test_nothing_is_kept_and_left_out() -> None:
    allowed = allow_list.dicom()
    assert not allowed.keep.keys() & allowed.leave_out.keys()
    assert all(allowed.leave_out.values())


def test_codes_are_dicoms_own() -> None:
    with (FOLDER / "codes.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    known = {scheme: {code for codes in concepts[scheme].values() for code in codes} for scheme in ("DCM", "SCT")}
    younger = {"ANN"}  # a modality since 2022; pydicom's table is older
    assert [row["code"] for row in rows if row["code"] not in known[row["scheme"]] | younger] == []
    for row in rows:
        assert not row["legacy_code"] or _snomed_dict.mapping["SRT"][row["legacy_code"]] == row["code"]
    assert len({(row["list"], row["code"]) for row in rows}) == len(rows)


def test_every_reason_that_is_given_is_known() -> None:
    named = {
        reason for path in FOLDER.glob("*.py") for reason in re.findall(r'"([XQM]-DICOM[A-Z-]*)"', path.read_text())
    }
    assert len(named) > 3 and all(outcome_of(reason) for reason in named)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"tag": "0010,0010", "vr": "PN", "as": "text", "to": "x", "why": "no"}, "unknown kind"),
        ({"tag": "0009,0010", "vr": "LO", "as": "word", "to": "x", "why": "no"}, "private"),
        ({"tag": "0018,0060", "vr": "DS", "as": "number", "to": "x", "why": "no"}, "least"),
        ({"tag": "0018,0060", "vr": "DS", "as": "number", "why": "no", "least": 1, "most": 2}, "`to`"),
        ({"tag": "0018,0060", "vr": "DS", "as": "used", "to": "x", "why": "no"}, "`to`"),
        ({"tag": "0018,0060", "vr": "DS", "as": "used"}, "no why"),
        ({"tag": "0018,0060", "vr": "DS", "as": "used", "why": "no", "colour": 1}, "unknown setting"),
    ],
)
def test_a_defect_in_the_list_is_found(settings, what) -> None:
    with pytest.raises(AllowListError, match=what):
        allow_list._element("KVP", settings)
