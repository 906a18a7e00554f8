"""The SQL of `resolve` and the plain Python of `explain` answer alike, on any vocabulary and any code maps."""

import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omop_etl.vocabulary import explain_code, open_vocabulary
from tests.vocabulary_helpers import concept, relation, resolve, site_with, write_athena, write_maps

SYSTEMS = {
    "http://snomed.info/sct": "SNOMED",
    "http://hl7.org/fhir/sid/icd-9-cm": "ICD9CM",
    "http://www.whocc.no/atc": "ATC",
    "http://unitsofmeasure.org": "UCUM",
    "urn:local": None,
    "": None,
}
CODES = ["1", "174.9", "1749", "17.49", "L01", "l01", "mg", "MG"]
IDS = st.integers(1, 8)
DOMAINS = ["Condition", "Measurement", "Observation", "Meas Value"]


@st.composite
def concepts(draw):
    drawn = []
    for id_ in range(1, draw(st.integers(1, 8)) + 1):
        vocabulary = draw(st.sampled_from(["SNOMED", "ICD9CM", "ICD9Proc", "ATC", "UCUM"]))
        standard, invalid = draw(st.sampled_from([("S", ""), ("S", ""), ("", ""), ("C", ""), ("", "D"), ("S", "U")]))
        domain = draw(st.sampled_from(DOMAINS))
        drawn.append(
            concept(id_, vocabulary, draw(st.sampled_from(CODES)), domain=domain, standard=standard, invalid=invalid)
        )
    return drawn


relations = st.lists(
    st.builds(
        lambda one, two, name, invalid: relation(one, two, name, invalid=invalid),
        IDS,
        st.integers(1, 9),
        st.sampled_from(["Maps to", "Maps to", "Maps to value", "Is a"]),
        st.sampled_from(["", "", "", "D"]),
    ),
    max_size=14,
)
map_rows = st.lists(
    st.fixed_dictionaries(
        {
            "sourceCode": st.sampled_from(CODES),
            "conceptId": st.integers(0, 9),
            "mappingStatus": st.sampled_from(["APPROVED", "APPROVED", "UNCHECKED"]),
            "mappingType": st.sampled_from(["", "MAPS_TO", "MAPS_TO", "MAPS_TO_VALUE"]),
        }
    ),
    max_size=6,
)
code_maps = st.dictionaries(st.sampled_from(list(SYSTEMS)), map_rows, max_size=3)


def _folder(root, name, drawn):
    return write_maps(root / name, {f"{i}.csv": item for i, item in enumerate(drawn.items())})


asked_codes = st.lists(
    st.tuples(st.sampled_from(list(SYSTEMS)), st.sampled_from(CODES)), min_size=8, max_size=16, unique=True
)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(concepts(), relations, code_maps, code_maps, asked_codes)
def test_the_same_answers(drawn_concepts, drawn_relations, study, site, asked):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        vocabulary = open_vocabulary(write_athena(root / "athena", drawn_concepts, drawn_relations))
        study_folder, hospital = _folder(root, "study", study), site_with(_folder(root, "site", site))
        with (
            mock.patch("omop_etl.vocabulary.resolve.study_folder", lambda: study_folder),
            mock.patch("omop_etl.vocabulary.explain.study_folder", lambda: study_folder),
        ):
            found = resolve(vocabulary, asked, site=hospital)
            for system, code in asked:
                explained = [
                    {key: value for key, value in vars(answer).items() if key != "steps"}
                    for answer in explain_code(vocabulary, system, code, site=hospital)
                ]
                queried = [
                    {key: value for key, value in row.items() if key not in ("system", "code", "map_rank")}
                    for row in found[(system, code)]
                ]
                assert queried == explained
