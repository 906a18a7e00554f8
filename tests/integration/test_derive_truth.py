"""From FHIR to lines and endpoints: what is derived equals the truth for every patient whose data were not planted as wrong.

37 hospitals with 6,000 patients are a benchmark: `tests/benchmarks/bench_derive.py --truth`.
"""

from pathlib import Path

import pytest

from tests.derive_truth import differences, eligibility_differences, opened, run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["clean", "dirty"])
def derived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    run(folder, sites=3, patients=120, dirty=request.param == "dirty", jobs=2)
    return folder


def test_lines_endpoints_progressions_and_resistance_equal_the_truth(derived: Path) -> None:
    with opened(derived) as connection:
        compared = connection.execute("SELECT count(*) FROM who WHERE told AND NOT spoiled").fetchall()[0][0]
        kinds = connection.execute("SELECT count(DISTINCT paramcd) FROM truth.endpoints").fetchall()[0][0]
    assert compared > 80
    assert kinds == 12
    assert differences(derived) == {"lines": [], "endpoints": [], "progressions": [], "resistance": []}


def test_eligibility_reasons_and_attrition_equal_the_truth(derived: Path) -> None:
    assert eligibility_differences(derived) == {"eligibility": [], "attrition": []}


def test_what_was_planted_as_wrong_lands_in_its_reason(derived: Path) -> None:
    """A death before day 0 and deaths that conflict withhold the endpoints; a drug that nobody could map is flagged."""
    with opened(derived) as connection:
        planted = connection.execute(
            "SELECT person_id, kind FROM truth.defects JOIN who USING (site, patient) "
            "WHERE kind IN ('death-before-index', 'unmapped-drug', 'two-cdk46-at-once') ORDER BY ALL"
        ).fetchall()
        withheld = dict(
            connection.execute(
                "SELECT person_id, value FROM derived.state WHERE name = 'endpoints-withheld'"
            ).fetchall()
        )
        flags = dict(
            connection.execute("SELECT person_id, flatten(list(flags)) FROM derived.line GROUP BY person_id").fetchall()
        )
        conflicts = connection.execute(
            "SELECT count(*) FROM truth.links WHERE kind = 'deaths-conflict' AND role = 'first' AND pair NOT IN "
            "(SELECT links.pair FROM truth.links LEFT JOIN who USING (site, patient) WHERE person_id IS NULL)"
        ).fetchall()[0][0]
        endpoints = {row[0] for row in connection.execute("SELECT DISTINCT person_id FROM derived.endpoint").fetchall()}
    assert bool(planted) == ("dirty" in derived.name)
    for person, kind in planted:
        if kind == "death-before-index":
            assert withheld[person] == "death-before-index"
        elif kind == "unmapped-drug":
            assert "unmapped-drug" in flags[person]
        else:
            assert "cdk46-switch" in flags[person]
    assert list(withheld.values()).count("deaths-conflict") == conflicts
    assert not endpoints & withheld.keys()
