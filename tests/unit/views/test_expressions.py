"""What FHIRPath expressions give, one table per family: expression → its value in a full patient | in an empty one."""

from typing import Any

import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.views import evaluate

FULL = {
    "resourceType": "Patient",
    "id": "p1",
    "active": True,
    "birthDate": "1970-06",
    "_birthDate": {"extension": [{"url": "urn:birth-time", "valueDateTime": "1970-06-01T10:00:00Z"}]},
    "name": [
        {"use": "official", "family": "Rossi", "given": ["Anna", None, "Bea"],
         "_given": [None, {"extension": [{"url": "urn:x", "valueString": "s"}]}, None]},
        {"family": "Bianchi"},
        {"use": "usual"},
    ],
    "multipleBirthInteger": 2,
    "contained": [
        {"resourceType": "Organization", "id": "o", "name": "Clinic"},
        {"resourceType": "Practitioner", "id": "pr", "gender": "male"},
    ],
    "contact": [{"telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "2"}]}, {"gender": "other"}],
    "managingOrganization": {"reference": "http://example.org/fhir/Organization/o9/_history/3"},
    "generalPractitioner": [
        {"reference": "#pr"},
        {"reference": "Practitioner/77"},
        {"reference": "urn:uuid:5c0e5a1e-0000-4000-8000-000000000000"},
        {"display": "no reference"},
    ],
    "extension": [{"url": "urn:a", "extension": [{"url": "urn:b", "valueCoding": {"code": "c"}}, {"url": "urn:d"}]}],
}  # fmt: skip
EMPTY = {"resourceType": "Patient", "id": "p2"}


def check(table: list[tuple[Any, ...]], collection: bool = False) -> None:
    columns = [{"name": f"c{n}", "path": row[0], "collection": collection} for n, row in enumerate(table)]
    full, empty = evaluate({"resource": "Patient", "select": [{"column": columns}]}, [FULL, EMPTY])
    assert {row[0]: (full[f"c{n}"], empty[f"c{n}"]) for n, row in enumerate(table)} == {
        row[0]: row[1:] for row in table
    }


def test_paths() -> None:
    check(
        [
            ("active", True, None),
            ("`active`", True, None),
            ("$this.active", True, None),
            ("Patient.name.first().family", "Rossi", None),
            ("%resource.id", "p1", "p2"),
            ("name.where(%context.active).count()", 3, 0),
            ("name[1].family", "Bianchi", None),
            ("name[7].family", None, None),
            ("name.last().use", "usual", None),
            ("name.tail().family", "Bianchi", None),
            ("name.skip(1).family.first()", "Bianchi", None),
            ("name.skip(-1).count()", 3, 0),
            ("name.take(2).count()", 2, 0),
            ("name.take(-1).count()", 0, 0),
            ("name.where(use = 'official').given[1]", "Bea", None),
            ("name.where($index = 1).family", "Bianchi", None),
            ("name.where(family = %resource.name.first().family).use", "official", None),
            ("name.given.where($this = 'Bea')", "Bea", None),
            ("contact.telecom.where(system = 'email').value.first()", "2", None),
            ("where(active).id", "p1", None),
            ("contained.ofType(Organization).name", "Clinic", None),
            ("contained.ofType(Practitioner).gender", "male", None),
            ("multipleBirth.ofType(integer)", 2, None),
            ("multipleBirth.ofType(boolean)", None, None),
            ("(multipleBirth as integer) + 1", 3, None),
            ("id.ofType(string)", "p1", "p2"),
            ("id.ofType(Quantity).value", None, None),
            ("{}", None, None),
        ]
    )


def test_a_step_that_only_one_type_of_a_choice_has() -> None:
    found = evaluate(
        {"resource": "Observation", "select": [{"column": [
            {"name": "unit", "path": "value.unit"},
            {"name": "code", "path": "value.coding.code"},
            {"name": "part", "path": "component.value.unit.first()"},
            {"name": "since", "path": "effective.start"},
        ]}]},
        [
            {"resourceType": "Observation", "id": "1", "valueQuantity": {"unit": "mg"}, "effectivePeriod": {"start": "2010"}},
            {"resourceType": "Observation", "id": "2", "valueCodeableConcept": {"coding": [{"code": "c"}]}},
            {"resourceType": "Observation", "id": "3", "component": [{"valueQuantity": {"unit": "kg"}}]},
        ],
    )  # fmt: skip
    assert [tuple(row.values()) for row in found] == [
        ("mg", None, None, "2010"),
        (None, "c", None, None),
        (None, None, "kg", None),
    ]


def test_boundaries_of_literals_and_their_precision() -> None:
    # the values are those of FHIRPath's own account of lowBoundary() and highBoundary(), where it gives one
    table: list[tuple[str, Any]] = [
        ("1.587.lowBoundary()", 1.5865),
        ("1.587.lowBoundary(8)", 1.5865),
        ("1.587.lowBoundary(2)", 1.58),
        ("1.587.highBoundary(2)", 1.59),
        ("1.587.lowBoundary(0)", 1.0),
        ("1.587.highBoundary(0)", 2.0),
        ("1.587.lowBoundary(-1)", None),
        ("1.587.lowBoundary(32)", None),
        ("(-1.587).lowBoundary()", -1.5875),
        ("(-1.587).lowBoundary(2)", -1.59),
        ("(-1.587).highBoundary(2)", -1.58),
        ("@2014.lowBoundary()", "2014-01-01"),
        ("@2014.lowBoundary(6)", "2014-01"),
        ("@2014.highBoundary(6)", "2014-12"),
        ("@2012-02.highBoundary(8)", "2012-02-29"),
        ("@2014.lowBoundary(5)", None),
        ("@2014-01-01T08.lowBoundary(17)", "2014-01-01T08:00:00.000+14:00"),
        ("@2014-01-01T08.highBoundary(12)", "2014-01-01T08:59-12:00"),
        ("@2014-01-01T08:10:11.5Z.highBoundary()", "2014-01-01T08:10:11.599Z"),
        ("@2014-01-01T08:10:11Z.highBoundary(14)", "2014-01-01T08:10:11Z"),
        ("@T10:30.lowBoundary(9)", "10:30:00.000"),
        ("@T10:30.highBoundary(6)", "10:30:59"),
        ("@T10:30.highBoundary(5)", None),
        ("@2014.toString()", "2014"),
    ]
    check([(path, value, value) for path, value in table])


def test_collections() -> None:
    check(
        [
            ("name.given", ["Anna", "Bea"], []),
            ("name.family", ["Rossi", "Bianchi"], []),
            ("active", [True], []),
            ("name.select(family & '-' & use)", ["Rossi-official", "Bianchi-", "-usual"], []),
            ("name.select(given)", ["Anna", "Bea"], []),
            ("name.family | name.use | name.family", ["Rossi", "Bianchi", "official", "usual"], []),
            ("{} | name.use", ["official", "usual"], []),
            ("name.use.distinct()", ["official", "usual"], []),
            ("generalPractitioner.getReferenceKey(Practitioner)", ["77"], []),
            ("{}", [], []),
        ],
        collection=True,
    )


def test_existence() -> None:
    check(
        [
            ("name.exists()", True, False),
            ("name.exists(use = 'usual')", True, False),
            ("name.empty()", False, True),
            ("name.given.empty()", False, True),
            ("name.period.empty()", True, True),
            ("multipleBirth.exists()", True, False),
            ("multipleBirth.empty()", False, True),
            ("multipleBirth is integer", True, False),
            ("deceased.is(boolean)", False, False),
            ("birthDate.hasValue()", True, False),
            ("name.all(family.exists())", False, True),
            ("name.all(use.exists() or family.exists())", True, True),
            ("name.count()", 3, 0),
            ("id.count()", 1, 1),
            ("{}.exists()", False, False),
        ]
    )


def test_three_valued_logic() -> None:
    check(
        [
            ("active and true", True, None),
            ("active and false", False, False),
            ("active or true", True, True),
            ("active or false", True, None),
            ("active xor true", False, None),
            ("active implies false", False, None),
            ("active implies true", True, True),
            ("false implies active", True, True),
            ("active.not()", False, None),
            ("(name.exists() and active).not()", False, True),
            # a single item that is no boolean counts as true
            ("id and active", True, None),
            ("iif(active, 'yes', 'no')", "yes", "no"),
            ("iif(active, 'yes')", "yes", None),
        ]
    )


def test_equality_and_order() -> None:
    check(
        [
            ("id = 'p1'", True, False),
            ("id != 'p1'", False, True),
            ("active = true", True, None),
            ("name.family = name.family", True, None),
            ("name.family = name.use", False, None),
            ("name.family = 'Rossi'", False, None),
            ("name.use.first() = name.where(use = 'official').use", True, None),
            ("{} = {}", None, None),
            ("1 = 1.0", True, True),
            ("2 < 10", True, True),
            ("'2' < '10'", False, False),
            ("multipleBirth.ofType(integer) >= 2", True, None),
            ("'Rossi' in name.family", True, False),
            ("name.family contains 'Verdi'", False, False),
            ("name.period.start.first() in name.family", None, None),
        ]
    )


def test_arithmetic() -> None:
    check(
        [
            ("0.1 + 0.2 = 0.3", True, True),
            ("1 + 2 * 3", 7, 7),
            ("7 / 2", 3.5, 3.5),
            ("7 div 2", 3, 3),
            ("-7 div 2", -3, -3),
            ("7 mod 2", 1, 1),
            ("1.3 mod 0.5", 0.3, 0.3),
            ("1 / 0", None, None),
            ("1 div 0", None, None),
            ("1 mod 0", None, None),
            ("multipleBirth.ofType(integer) - 3", -1, None),
            ("multipleBirth.ofType(integer) * 1.5", 3.0, None),
            ("{} + 1", None, None),
            ("(-1.5).abs()", 1.5, 1.5),
            ("1.5.ceiling()", 2, 2),
            ("1.5.floor()", 1, 1),
            ("(-1.5).truncate()", -1, -1),
            ("3.14159.round(3)", 3.142, 3.142),
            ("100000 * 100000", None, None),  # outside FHIRPath's Integer
        ]
    )


def test_strings() -> None:
    check(
        [
            ("name.given.join(', ')", "Anna, Bea", ""),
            ("name.given.join()", "AnnaBea", ""),
            ("id.join(',')", "p1", "p2"),
            ("'a' + id", "ap1", "ap2"),
            ("'a' + name.family.first()", "aRossi", None),
            ("'a' & name.family.first()", "aRossi", "a"),
            ("name.first().family.startsWith('Ro')", True, None),
            ("name.first().family.endsWith('Ro')", False, None),
            ("name.first().family.contains('oss')", True, None),
            ("name.first().family.matches('^R.s+i$')", True, None),
            ("name.first().family.upper()", "ROSSI", None),
            ("name.first().family.lower()", "rossi", None),
            ("name.first().family.length()", 5, None),
            ("name.first().family.substring(1, 2)", "os", None),
            ("name.first().family.substring(9)", None, None),
            ("name.first().family.indexOf('s')", 2, None),
            ("name.first().family.replace('ss', 't')", "Roti", None),
            ("' a '.trim()", "a", "a"),
            ("'12'.toInteger()", 12, 12),
            ("'1.5'.toInteger()", None, None),
            ("'1.5'.toDecimal()", 1.5, 1.5),
            ("'x'.toDecimal()", None, None),
            ("'true'.toBoolean()", True, True),
            ("1.5.toString()", "1.5", "1.5"),
            ("'it\\'s'", "it's", "it's"),
        ]
    )


def test_references_and_keys() -> None:
    check(
        [
            ("getResourceKey()", "p1", "p2"),
            ("managingOrganization.getReferenceKey()", "o9", None),
            ("managingOrganization.getReferenceKey(Organization)", "o9", None),
            ("managingOrganization.getReferenceKey('Organization')", "o9", None),
            ("managingOrganization.getReferenceKey(Patient)", None, None),
            ("generalPractitioner.getReferenceKey(Practitioner)", "77", None),
            ("generalPractitioner.first().getReferenceKey()", None, None),
        ]
    )


def test_extensions() -> None:
    check(
        [
            ("extension('urn:a').extension('urn:b').value.ofType(Coding).code", "c", None),
            ("extension('urn:a').extension('urn:none').exists()", False, False),
            ("birthDate.extension('urn:birth-time').value.ofType(dateTime)", "1970-06-01T10:00:00Z", None),
            ("name.given.extension('urn:x').value.ofType(string)", "s", None),
            ("extension.where(url = 'urn:a').exists()", True, False),
        ]
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nam", "Patient has no element 'nam'"),
        ("name.value", "HumanName has no element 'value'"),
        ("id.x", "id has no element 'x'"),
        ("multipleBirthInteger", r"multipleBirth.ofType\(integer\)"),
        ("multipleBirth", r"choose one with .ofType\(\)"),
        ("multipleBirth.value", r"choose one with .ofType\(\)"),
        ("multipleBirth = 2", r"choose one with .ofType\(\)"),
        ("multipleBirth.ofType(Quantty)", "'Quantty' is no type of FHIR R4"),
        ("multipleBirth.ofType(1)", "the name of a type expected"),
        ("name.foo()", r"the function foo\(\) is not supported"),
        ("name.where()", r"where\(\) takes 1 argument"),
        ("name ~ name", "the operator '~' is not supported"),
        ("%x", "%x is not defined"),
        ("$total", r"\$total is not defined here"),
        ("active = 1", "'=' between boolean and integer"),
        ("active < true", "no meaning for booleans"),
        ("name = name", "'=' compares primitives, not HumanName"),
        ("id + 1", r"'\+' between id and integer"),
        ("id - 1", "'-' needs a number, not id"),
        ("active.upper()", "a string is needed, not boolean"),
        ("name.getResourceKey()", r"getResourceKey\(\) is for a resource, not for HumanName"),
        ("name.getReferenceKey()", r"getReferenceKey\(\) is for a Reference, not for HumanName"),
        ("managingOrganization.getReferenceKey(Period)", "'Period' is no resource"),
        ("name.lowBoundary()", r"lowBoundary\(\) is for dates"),
        ("birthDate.lowBoundary('x')", "the precision of a boundary must be a whole number"),
        ("birthDate.lowBoundary(4, 6)", r"lowBoundary\(\) takes 0 to 1 arguments"),
        ("name[id]", "an integer is needed, not id"),
        ("iif(active, 1, 'x')", "primitives of one type"),
        ("iif(active, name, contact.name)", "primitives of one type"),
        ("name & 'x'", "a string is needed, not HumanName"),
        ("name.join()", r"join\(\) is for primitives"),
        ("name.given.where($this = 'a').extension('x')", "only an element has extensions"),
        ("name.first().family = @T10:00 or birthDate = @T10:00", "date and time cannot be compared"),
        ("$this", "the resource itself is no value"),
    ],
)
def test_errors_name_the_place_and_the_reason(path: str, words: str) -> None:
    view = {"resource": "Patient", "select": [{"column": [{"name": "a", "path": "id"}, {"name": "b", "path": path}]}]}
    with pytest.raises(PalmaresError, match=r"E-VIEW-02 select\[0\].column\[1\].path: .*" + words):
        evaluate(view, [])


@pytest.mark.parametrize(
    "path", ["name.family", "name.family.upper()", "name.family + 'x'", "name.family < 'x'", "name.single().use"]
)
def test_several_values_are_an_error_that_shows_none(path: str) -> None:
    with pytest.raises(PalmaresError, match=r"E-VIEW-03 view select\[0\].column\[0\].path") as caught:
        evaluate({"resource": "Patient", "select": [{"column": [{"name": "a", "path": path}]}]}, [FULL])
    assert "Rossi" not in str(caught.value)
