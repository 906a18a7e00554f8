"""What an observation answers, of each type of value[x], and what it becomes; a component answers as the observation itself does."""

from typing import Any

import pytest

from tests.mapping_helpers import HEMOGLOBIN, LOINC, SNOMED, UCUM, Slice, concept, mapped, patient, resource

POSITIVE = concept((SNOMED, "10828004"))
# name → (what the resource says, number, operator, unit, concept, source value)
VALUES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "quantity": (
        {"valueQuantity": {"value": 4.2, "unit": "g/dL", "code": "g/dL", "system": UCUM}},
        (4.2, None, 8713, None, None),
    ),
    "quantity with <": (
        {"valueQuantity": {"value": 4.2, "comparator": "<", "code": "g/dL", "system": UCUM}},
        (4.2, 4171756, 8713, None, "< 4.2"),
    ),
    "quantity with <=": ({"valueQuantity": {"value": 4, "comparator": "<="}}, (4.0, 4171754, None, None, "<= 4")),
    "quantity with >=": ({"valueQuantity": {"value": 4, "comparator": ">="}}, (4.0, 4171755, None, None, ">= 4")),
    "quantity with >": ({"valueQuantity": {"value": 4, "comparator": ">"}}, (4.0, 4172704, None, None, "> 4")),
    "nought": ({"valueQuantity": {"value": 0}}, (0.0, None, None, None, None)),
    "less than nought": ({"valueQuantity": {"value": -1.5}}, (-1.5, None, None, None, None)),
    "integer": ({"valueInteger": 7}, (7.0, None, None, None, None)),
    "boolean": ({"valueBoolean": False}, (None, None, None, 4188540, "false")),
    "coded": ({"valueCodeableConcept": POSITIVE}, (None, None, None, 9191, "10828004")),
    "coded, unknown": ({"valueCodeableConcept": concept(("urn:x", "y"))}, (None, None, None, 0, "y")),
    "range": (
        {"valueRange": {"low": {"value": 1, "code": "g/dL"}, "high": {"value": 2.5, "code": "g/dL"}}},
        (None, None, 8713, None, "1 - 2.5"),
    ),
    "ratio": (
        {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 8}}},
        (0.125, None, None, None, "1:8"),
    ),
    "titre": (
        {"valueRatio": {"numerator": {"value": 1, "comparator": "<"}, "denominator": {"value": 8}}},
        (0.125, 4171756, None, None, "< 1:8"),
    ),
    "time": ({"valueTime": "10:30:00"}, (None, None, None, None, "10:30:00")),
    "dateTime": ({"valueDateTime": "2020-01"}, (None, None, None, None, "2020-01")),
    "period": (
        {"valuePeriod": {"start": "2020-01-01", "end": "2020-02-01"}},
        (None, None, None, None, "2020-01-01 / 2020-02-01"),
    ),
    "string": ({"valueString": "free words"}, (None, None, None, None, None)),
    "interpretation alone": (
        {"interpretation": [{"coding": [{"code": "POS"}]}]},
        (None, None, None, None, "POS"),
    ),
    "absent, unknown": (
        {"dataAbsentReason": {"coding": [{"code": "unknown"}]}},
        (None, None, None, None, "unknown"),
    ),
    "absent, as text": (
        {"dataAbsentReason": {"coding": [{"code": "as-text"}]}},
        (None, None, None, None, "as-text"),
    ),
}
# nothing was measured: no row
NOTHING = ("not-performed", "not-asked", "asked-declined", "not-applicable", "unsupported", "not-permitted")
COLUMNS = ("value_as_number", "operator_concept_id", "unit_concept_id", "value_as_concept_id", "value_source_value")


def bare(identity: str, **more: Any) -> dict[str, Any]:
    """A haemoglobin of the laboratory, without a value."""
    one = resource("Observation", identity, category=[{"coding": [{"code": "laboratory"}]}])
    del one["valueQuantity"]
    return one | more


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    told = [patient()]
    for number, (said, _) in enumerate(VALUES.values()):
        told.append(bare(f"v{number}", **said))
        part = {"code": concept((LOINC, HEMOGLOBIN[0]))} | said
        told.append(bare(f"c{number}", component=[part], code=concept((LOINC, "85354-9"))))
    told += [bare(f"n{n}", dataAbsentReason={"coding": [{"code": code}]}) for n, code in enumerate(NOTHING)]
    told += [
        bare("sampled", valueSampledData={"origin": {"value": 0}, "period": 10, "dimensions": 1, "data": "1 2 3"}),
        bare("ranges", valueInteger=3, referenceRange=[{"low": {"value": 1}}, {"low": {"value": 5}}]),
    ]
    return mapped(tmp_path_factory.mktemp("values"), told)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kind", ["observation", "component"])
def test_values(slice_: Slice, kind: str, name: str) -> None:
    number = list(VALUES).index(name)
    row = slice_.one("Observation", f"{kind[0].replace('o', 'v')}{number}", "measurement")
    assert row["measurement_concept_id"] == HEMOGLOBIN[1]
    assert tuple(row[column] for column in COLUMNS) == VALUES[name][1]


@pytest.mark.parametrize("code", NOTHING)
def test_what_was_not_measured_is_no_row(slice_: Slice, code: str) -> None:
    assert slice_.why("Observation", f"n{NOTHING.index(code)}") == ("excluded", "X-DATA-ABSENT")


@pytest.mark.requirement("f2o-080")
def test_a_curve_is_counted_as_lost(slice_: Slice) -> None:
    assert slice_.why("Observation", "sampled")[0] == "excluded"
    assert slice_.manifest()["losses"]["sampled-data"] == 1


def test_of_several_ranges_the_first(slice_: Slice) -> None:
    row = slice_.one("Observation", "ranges", "measurement")
    assert (row["range_low"], row["range_high"]) == (1.0, None)
