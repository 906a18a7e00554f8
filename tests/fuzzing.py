"""Broken FHIR: sound resources of every type that is mapped, each with a few things made wrong; and what must hold of what comes out.

A resource carries MARK in every text that nobody should ever say again. `broken` gives lines of NDJSON; `hold` lands, validates and
maps them, both ways, and returns how many resources had which outcome. Everything follows from the seed.
"""

import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.landing import land, read_manifest
from fhir_adapters.validation import validate
from omop_etl.mapping import map_folder, map_site
from omop_etl.mapping.recipes import recipes
from tests.mapping_helpers import concept, patient, resource, site

MARK = "Zuccherini Ferragnani"  # two words: an invented resource type of one word is repeated
PEOPLE = tuple(f"p{number}" for number in range(12))
_SHARED: dict[str, dict[str, Any]] = {
    "Organization": {"name": MARK},
    "Practitioner": {"gender": "female", "name": [{"family": MARK}]},
    "PractitionerRole": {
        "practitioner": {"reference": "Practitioner/r0"},
        "organization": {"reference": "Organization/r0"},
    },
    "Location": {"name": MARK, "address": {"state": "MI", "country": "IT", "line": [MARK]}},
    "Medication": {"code": concept(("urn:local:drugs", "d1"), text=MARK)},
    "Claim": {"status": "active"},
}
_WORDS = (
    "", " ", "\x00", "﻿", "\ud800", "e\u0301" * 40, "\u202e" + MARK, "🏥" * 300, MARK, MARK * 4000, "'; DROP TABLE person; --", '"\\', "\n\r\t",
    "{x}", "%s", "NaN", "null", "../../../etc", "=cmd()", "\u2028", "İ", "ﬀ", "𝔄", "a" * 65, "-", "0", "1e999",
)  # fmt: skip
_DATES = (
    "2023-02-30", "0000-00-00", "9999-12-31", "99999-01-01", "-2020-01-01", "2024-02-29T24:00:00Z", "2020-03-29T02:30:00", "2020-13", "20200101",
    "01/02/2020", "2020-01-01T10:00:00+99:99", "2020-01-01T10:00:60Z", "1582-10-10", "0001-01-01", "1899-12-31", "2100-01-01T00:00:00.123456789Z",
    "2020", "2020-02", "٢٠٢٠-٠١-٠١", "2020-1-1", "T10:00", "2020-01-01T", "yesterday", "294277-01-10T04:00:54.775807Z", "2020-01-01t10:00:00z",
)  # fmt: skip
_NUMBERS = (0, -0.0, -1, 1e308, -1e308, 10**30, 2**53, 2**63, 2**64, 0.1 + 0.2, 1e-320, True, "12.5", "12,5")
_REFERENCES = (
    "Patient/nobody", "Patient/", "/", "#", "#self", "urn:uuid:" + "0" * 36, "http://other.example/fhir/Patient/p1/_history/3", "Patient/p1/x/y",
    "patient/p1",
    "Observation/Observation-0",
    "?identifier=x", "Patient/p1?x=1", MARK, "Patient/" + "a" * 200, "https://x.example/Patient/p2", "Group/1", "urn:oid:2.999",
)  # fmt: skip
_SYSTEMS = (
    "",
    "http://loinc.org/",
    "HTTP://LOINC.ORG",
    "urn:oid:2.16.840.1.113883.6.1",
    "http://snomed.info/sct|x",
    "urn:local:fuzz",
    " http://loinc.org",
    "x" * 3000,
)


def sound(rng: random.Random, kind: str, number: int) -> dict[str, Any]:
    """A sound resource of a type."""
    meta = {"meta": {"lastUpdated": f"2024-01-{rng.randint(1, 28):02d}T10:00:00Z", "versionId": str(rng.randint(1, 9))}}
    text = {"text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{MARK}</div>'}}
    if kind == "Patient":
        name = {"name": [{"family": MARK}], "identifier": [{"system": "urn:mrn", "value": MARK}]}
        return patient(rng.choice(PEOPLE), **name, **meta, **text)
    if kind in _SHARED:
        return {"resourceType": kind, "id": f"r{number % 5}", **_SHARED[kind], **meta, **text}
    made = resource(kind, f"{kind}-{number}", rng.choice(PEOPLE), **meta, **text)
    if kind == "Observation":
        made["note"] = [{"text": MARK}]
        if number % 3 == 0:
            made.pop("valueQuantity")
            made["component"] = [{"code": concept(("http://loinc.org", "8480-6")), "valueQuantity": {"value": 1}}] * 2
        if number % 3 == 1:
            made.pop("valueQuantity")
            made["valueString"] = MARK
    return made


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if len(path) > 12:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*path, index)
            yield from _places(inner, (*path, index))


def _mutate(rng: random.Random, one: dict[str, Any]) -> None:
    """Make one thing wrong."""
    place = rng.choice([path for path in islice(_places(one), 500) if path != ("id",)] or [("id",)])
    holder: Any = one
    for step in place[:-1]:
        holder = holder[step]
    key, value = place[-1], holder[place[-1]]
    roll = rng.randrange(16)
    if roll == 0:
        del holder[key]
    elif roll == 1:
        holder[key] = rng.choice([None, [], {}, [None], [[]], {"": 1}, [{}], False, 0])
    elif roll == 2:
        holder[key] = [value]
    elif roll == 3:
        holder[key] = value[0] if isinstance(value, list) and value else {"value": value}
    elif roll == 4:
        deep: Any = value
        for _ in range(rng.choice([3, 60, 400])):
            deep = {"extension": [deep]} if rng.random() < 0.5 else [deep]
        holder[key] = deep
    elif roll == 5:
        holder[key] = [value] * rng.choice([2, 50, 500])
    elif roll == 6 and isinstance(holder, dict):
        holder["modifierExtension"] = [{"url": "urn:x", "valueBoolean": True}]
    elif roll == 7 and isinstance(holder, dict):
        holder[rng.choice(["zzz", "_status", "extension", "value[x]", "resourceType", "contained"])] = rng.choice(
            [MARK, [{"url": MARK}], 1]
        )
    elif roll == 8 and isinstance(holder, dict):
        holder[f"{key}{rng.choice(['', ' ', 's'])}".upper()] = value
    elif (
        "date" in str(key).lower()
        or "time" in str(key).lower()
        or key in ("start", "end", "issued", "started", "lastUpdated", "authoredOn", "birthDate")
    ):
        holder[key] = rng.choice(_DATES)
    elif key == "reference":
        holder[key] = rng.choice(_REFERENCES)
    elif key in ("system", "code"):
        holder[key] = rng.choice(_SYSTEMS + _WORDS)
    elif isinstance(value, int | float):
        holder[key] = rng.choice(_NUMBERS)
    elif isinstance(value, str):
        holder[key] = rng.choice(_WORDS + _DATES)
    else:
        holder[key] = rng.choice([*_WORDS, *_NUMBERS])


@contextmanager
def _deep() -> Iterator[None]:
    """Things nested in nested things go deeper than Python writes by itself; what is tested keeps its own limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _as_line(rng: random.Random, one: dict[str, Any]) -> bytes:
    """The line; now and then its bytes are wrong as well."""
    with _deep():
        line = json.dumps(one, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    roll = rng.randrange(60)
    if roll == 0:
        return line[: rng.randrange(len(line) + 1)]
    if roll == 1:
        return line.replace(b'"status"', b'"status": "final", "status"', 1)
    if roll == 2:
        place = rng.randrange(len(line))
        return line[:place] + bytes([rng.randrange(256)]) + line[place + 1 :]
    if roll == 3:
        return b"\xef\xbb\xbf" + line
    if roll == 4:
        return line + rng.choice([b"}", b" {}", b"\r", b"\x00", b"// x"])
    if roll == 5:
        return rng.choice(
            [b"[]", b"{}", b"null", b'"x"', b"42", b"{", b"", b'{"resourceType": 7}', b'{"resourceType": "Patient"}']
        )
    if roll == 6:
        return line.replace(b": ", b": 1e999 , " if rng.random() < 0.1 else b" :\t")
    return line.replace(b"\n", b" ")


def broken(seed: int, count: int) -> list[bytes]:
    """Lines of NDJSON: sound patients, and resources of which about one in eight is sound."""
    rng = random.Random(seed)
    kinds = [*recipes(), "Patient", "Observation", "Observation", "Claim"]
    lines = [json.dumps(patient(one)).encode() for one in PEOPLE]
    for number in range(count - len(lines)):
        one = copy.deepcopy(sound(rng, rng.choice(kinds), number))
        for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 6])):
            _mutate(rng, one)
        if rng.random() < 0.02:
            one["id"] = rng.choice([*_WORDS, 7, None, "p1"])
        lines.append(_as_line(rng, one).replace(b"\n", b" "))
    return lines


def hold(root: Path, lines: list[bytes], said: list[str]) -> Counter[str]:
    """Land, validate and map; raise AssertionError where something is lost or said that must not be.

    `said` takes every message. A stage raises by itself when its resources do not balance.
    """
    source = root / "source"
    source.mkdir(parents=True)
    (source / "all.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    landed, accepted = root / "landed", root / "accepted"
    first = land([source], landed, jobs=1)
    validate(landed, accepted, verdicts=root / "verdicts", jobs=1)
    results = (
        map_site(site(), accepted, root / "slice", progress=said.append),
        map_site(site(), landed, root / "unchecked", progress=said.append),
        map_folder(site(), source, root / "direct", progress=said.append),
    )
    there = sum(1 for line in lines if line.strip())
    in_shards = sum(shard.resources or 0 for shard in read_manifest(landed).shards)
    assert in_shards + sum(first.quarantined.values()) + first.deleted == there
    for name, result in zip(("slice", "unchecked", "direct"), results, strict=True):
        said.append(str(result))
        for path in [*(root / name).rglob("manifest.json"), root / name / "unmapped.csv"]:
            said.append(path.read_text(encoding="utf-8"))
        said += _texts(root / name / "ledger.parquet", "resource_type", "outcome", "reason", "cdm_table")
    said += _texts(accepted / "quarantine.parquet", "resource_type", "reason", "position", "element")
    return Counter(results[0].resources)


def _texts(path: Path, *columns: str) -> list[str]:
    with duckdb.connect() as connection:
        return [
            str(value)
            for name in columns
            for (value,) in connection.execute(f"SELECT DISTINCT {name} FROM read_parquet('{path}')").fetchall()
        ]
