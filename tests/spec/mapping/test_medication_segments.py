"""A drug that changes dose is one statement per segment. The table is run as it stands."""

from pathlib import Path

from tests.mapping_helpers import RXNORM, UCUM, concept, mapped, patient, resource

# drug | from | until | mg | said last | still taken -> start | end | stated end | amount
SEGMENTS = """
1601374 palbociclib | 2021-01-04 | 2021-03-31 | 125 |            | completed -> 2021-01-04 | 2021-03-31 | 2021-03-31 | 125
1601374 palbociclib | 2021-04-01 | 2021-06-30 | 100 |            | stopped   -> 2021-04-01 | 2021-06-30 | 2021-06-30 | 100
1601374 palbociclib | 2021-07-08 |            |  75 | 2021-09-30 | active    -> 2021-07-08 | 2021-09-30 |            |  75
72965 letrozole     | 2021-01    |            |     | 2021-09-30 | active    -> 2021-01-01 | 2021-09-30 |            |
72965 letrozole     | 2020-02-02 |            |     |            | completed -> 2020-02-02 | 2020-02-02 |            |
"""


def test_segments(tmp_path: Path) -> None:
    told, expected = [], []
    for number, line in enumerate(SEGMENTS.strip().splitlines()):
        given, _, answer = line.partition("->")
        drug, start, end, dose, said, status = (part.strip() for part in given.split("|"))
        expected.append([part.strip() for part in answer.split("|")])
        quantity = {"doseQuantity": {"value": int(dose or 0), "code": "mg", "system": UCUM}}
        more = {"dateAsserted": said} if said else {}
        more |= {"dosage": [{"doseAndRate": [quantity]}]} if dose else {}
        one = resource(
            "MedicationStatement",
            f"m{number}",
            status=status,
            medicationCodeableConcept=concept((RXNORM, drug.split()[0])),
            **more,
        )
        one.pop("effectiveDateTime")
        told.append(one | {"effectivePeriod": {"start": start} | ({"end": end} if end else {})})
    slice_ = mapped(tmp_path, [patient(), *told])
    for number, (start, end, stated, amount) in enumerate(expected):
        row = slice_.one("MedicationStatement", f"m{number}", "drug_exposure")
        found = [
            str(row[name] or "") for name in ("drug_exposure_start_date", "drug_exposure_end_date", "verbatim_end_date")
        ]
        assert [
            *found,
            f"{row['quantity'] or 0:g}".replace("0", "") if not row["quantity"] else f"{row['quantity']:g}",
        ] == [start, end, stated, amount]
