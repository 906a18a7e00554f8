"""k-anonymity: counted as declared, enforced as declared, and shown without small numbers."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from omop_etl.publish.anonymity import Anonymity, enforce

NAMES = ["site", "index_year", "age", "sex"]
Person = tuple[str, int, int, str]  # site, index year, birth year, sex


def declared(**changes: Any) -> dict[str, Any]:
    about = {"quasi_identifiers": NAMES, "k": 5, "enforce": "report", "suppress": ["age", "site", "sex"]}
    return {"k_anonymity": about | changes}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as one:
        one.execute("CREATE MACRO age_top_code() AS 90")
        yield one


def release(connection: duckdb.DuckDBPyConnection, people: list[Person]) -> None:
    connection.execute(
        "CREATE OR REPLACE TABLE released (person_id BIGINT, site VARCHAR, index_date DATE, index_drug VARCHAR, "
        "year_of_birth INTEGER, month_of_birth INTEGER, sex VARCHAR)"
    )
    for number, (site, year, birth, sex) in enumerate(people):
        connection.execute(
            "INSERT INTO released VALUES (?, ?, make_date(?, 6, 1), 'palbociclib', ?, 1, ?)",
            [number, site, year, birth, sex],
        )


TWENTY: list[Person] = [("s01", 2021, 1960, "F")] * 12 + [("s02", 2021, 1960, "F")] * 6 + [("s02", 2021, 1941, "M")] * 2


def test_it_is_counted(connection: duckdb.DuckDBPyConnection) -> None:
    release(connection, TWENTY)
    found = enforce(connection, declared())
    assert (found.patients, found.below_before, found.below, found.smallest, found.emptied) == (20, 2, 2, 2, {})
    assert enforce(connection, declared(k=2)).below == 0
    assert enforce(connection, declared(quasi_identifiers=["site"], suppress=[])).below == 0


def test_ages_above_the_top_code_are_one_class(connection: duckdb.DuckDBPyConnection) -> None:
    release(connection, [("s01", 2021, 1921 + n, "F") for n in range(10)])
    assert enforce(connection, declared(quasi_identifiers=["age"], suppress=["age"])).below == 0


def test_it_is_suppressed_in_the_declared_order(connection: duckdb.DuckDBPyConnection) -> None:
    release(connection, TWENTY)
    # two men without a site and an age are still two; without their sex they are two without anything
    with pytest.raises(PalmaresError) as raised:
        enforce(connection, declared(enforce="suppress"))
    assert raised.value.code == "E-PUBLISH-04"
    release(connection, [*TWENTY, *[("s03", 2021, 1941, "M")] * 3])
    found = enforce(connection, declared(enforce="suppress"))
    assert (found.below_before, found.below, found.smallest) == (5, 0, 5)
    assert found.emptied == {"age": 5, "site": 5}
    assert connection.execute(
        "SELECT count(*) FROM released WHERE year_of_birth IS NULL AND site IS NULL"
    ).fetchall() == [(5,)]
    assert connection.execute("SELECT count(*) FROM released WHERE sex IS NULL").fetchall() == [(0,)]


@settings(max_examples=12, deadline=None)
@given(
    people=st.lists(
        st.tuples(
            st.sampled_from(["s01", "s02"]),
            st.sampled_from([2020, 2021]),
            st.sampled_from([1950, 1960, 1970]),
            st.just("F"),
        ),
        max_size=40,
    )
)
def test_what_was_suppressed_is_anonymous_or_not_released(
    connection: duckdb.DuckDBPyConnection, people: list[Person]
) -> None:
    release(connection, people)
    try:
        found = enforce(connection, declared(enforce="suppress", k=3))
    except PalmaresError as error:
        assert error.code == "E-PUBLISH-04"
        return
    classes = connection.execute(
        "SELECT count(*) FROM released GROUP BY site, year(index_date), year_of_birth, sex"
    ).fetchall()
    assert all(count >= 3 for (count,) in classes)
    assert found.below == 0


def test_it_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    release(connection, TWENTY)
    with pytest.raises(PalmaresError) as raised:
        enforce(connection, declared(enforce="refuse"))
    assert raised.value.code == "E-PUBLISH-04"
    assert raised.value.count is None  # how many they are is a small number
    assert enforce(connection, declared(enforce="refuse", k=2)).below == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"quasi_identifiers": ["shoe size"]}, {"quasi_identifiers": []}, {"k": 0}, {"k": "5"}, {"enforce": "hope"},
        {"enforce": None}, {"suppress": ["weight"]}, {"quasi_identifiers": ["age"], "suppress": ["site"]},
        {"enforce": "suppress", "suppress": ["index_year"]},
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit(changes: dict[str, Any], connection: duckdb.DuckDBPyConnection) -> None:
    release(connection, TWENTY)
    with pytest.raises(PalmaresError) as raised:
        enforce(connection, declared(**changes))
    assert raised.value.code == "E-STUDY-03"


def test_nothing_declared(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(PalmaresError) as raised:
        enforce(connection, {})
    assert raised.value.code == "E-STUDY-03"


@pytest.mark.parametrize(
    ("patients", "below", "said"),
    [(100, 0, 0), (100, 3, "*"), (100, 40, 40), (100, 95, "*"), (100, 100, 100), (6, 6, 6)],
)
def test_what_is_shown(patients: int, below: int, said: int | str) -> None:
    found = Anonymity(("age",), 5, "report", patients, below, below, 1, {"age": below}).shown(threshold=10)
    if patients >= 10:
        assert found["patients_below_k"] == said
        assert found["values_emptied"] == {"age": said}
    assert found["reached"] is (below == 0)
    if patients < 10:
        assert found["patients"] == "*"
        assert found["patients_below_k"] == "*"
