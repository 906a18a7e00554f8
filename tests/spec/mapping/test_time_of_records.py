"""Time, as a clinician reads it: what the hospital wrote, what stands in OMOP. The tables below are run as they stand."""

from pathlib import Path

import pytest

from tests.mapping_helpers import Slice, mapped, patient, resource

# zone of the site | written by the source | date in OMOP | datetime in OMOP | type concept
INSTANTS = """
Europe/Rome | 2021-01-04T23:30:00Z          | 2021-01-05 | 2021-01-05 00:30:00 | 32817   across midnight
Europe/Rome | 2021-01-05T00:30:00+01:00     | 2021-01-05 | 2021-01-05 00:30:00 | 32817   the same instant
Europe/Rome | 2021-03-28T00:59:59Z          | 2021-03-28 | 2021-03-28 01:59:59 | 32817   the last second of winter time
Europe/Rome | 2021-03-28T01:00:00Z          | 2021-03-28 | 2021-03-28 03:00:00 | 32817   the first of summer time
Europe/Rome | 2021-10-31T00:30:00Z          | 2021-10-31 | 2021-10-31 02:30:00 | 32817   half past two, the first time
Europe/Rome | 2021-10-31T01:30:00Z          | 2021-10-31 | 2021-10-31 02:30:00 | 32817   half past two, the second time
Europe/Rome | 2021-07-01T08:00:00           | 2021-07-01 | 2021-07-01 08:00:00 | 32817   no offset: the site's own clock
Europe/Rome | 2021-07-01                    | 2021-07-01 | 2021-07-01 00:00:00 | 32817
Europe/Rome | 2021-07                       | 2021-07-01 | 2021-07-01 00:00:00 | 32882   known to the month: imputed
Europe/Rome | 2021                          | 2021-01-01 | 2021-01-01 00:00:00 | 32882   known to the year: imputed
Europe/Rome | 1899-12-31T12:00:00Z          | 1899-12-31 | 1899-12-31 13:00:00 | 32817   before 1900
Europe/Rome | 1801-05                       | 1801-05-01 | 1801-05-01 00:00:00 | 32882
Europe/Rome | 2099-01-01                    | 2099-01-01 | 2099-01-01 00:00:00 | 32817   after the extraction: kept, the gate shows it
UTC         | 2021-01-04T23:30:00Z          | 2021-01-04 | 2021-01-04 23:30:00 | 32817
UTC         | 2021-01-05T00:30:00+01:00     | 2021-01-04 | 2021-01-04 23:30:00 | 32817
"""

# start | end as written | end in OMOP | does the row say that it was imputed?
ENDS = """
2020-01-10 | 2020-02-20          | 2020-02-20 | no
2020-01-10 | 2020-02             | 2020-02-29 | yes   the last day of what is known
2020-01-10 | 2020                | 2020-12-31 | yes
2020-01-10 |                     |            | no    open: nothing is known of an end
2024-05-01 | 2024                | 2024-06-30 | yes   imputed ends stop at the extraction
2024-06    | 2024-06-15          | 2024-06-15 | no
"""


def lines(text: str) -> list[list[str]]:
    return [[part.strip() for part in line.split("|")] for line in text.strip().splitlines()]


@pytest.fixture(scope="module", params=["Europe/Rome", "UTC"])
def zoned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Slice]:
    zone = request.param
    told = [
        resource("Observation", f"o{number}", effectiveDateTime=row[1], meta={"lastUpdated": "2024-06-30T12:00:00Z"})
        for number, row in enumerate(lines(INSTANTS))
        if row[0] == zone
    ]
    return zone, mapped(tmp_path_factory.mktemp("time"), [patient(), *told], zone=zone)


@pytest.mark.requirement("f2o-070", "f2o-071", "f2o-072", "f2o-073")
def test_instants(zoned: tuple[str, Slice]) -> None:
    zone, slice_ = zoned
    for number, (place, _, day, moment, rest) in enumerate(lines(INSTANTS)):
        if place == zone:
            row = slice_.one("Observation", f"o{number}", "measurement")
            found = (str(row["measurement_date"]), str(row["measurement_datetime"]), row["measurement_type_concept_id"])
            assert found == (day, moment, int(rest.split()[0])), lines(INSTANTS)[number]


@pytest.mark.requirement("f2o-071")
def test_ends(tmp_path: Path) -> None:
    told = []
    for number, (start, end, *_) in enumerate(lines(ENDS)):
        more = {"abatementDateTime": end} if end else {}
        told.append(
            resource(
                "Condition", f"c{number}", onsetDateTime=start, meta={"lastUpdated": "2024-06-30T12:00:00Z"}, **more
            )
        )
    slice_ = mapped(tmp_path, [patient(), *told])
    imputed = {row["cdm_id"] for row in slice_.rows("side/imputed") if row["end_imputed"]}
    for number, (_, _, end, rest) in enumerate(lines(ENDS)):
        row = slice_.one("Condition", f"c{number}", "condition_occurrence")
        assert str(row["condition_end_date"] or "") == end, lines(ENDS)[number]
        assert (row["condition_occurrence_id"] in imputed) == (rest.split()[0] == "yes"), lines(ENDS)[number]
