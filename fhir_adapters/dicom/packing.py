"""What was read of a study as one line of JSON, for the spool: a run that was killed goes on after the studies that it has.

Nothing in it identifies: instances hold pseudonyms and permitted values only.
"""

from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from fhir_adapters.dicom.values import Coding, Instance, Measure, Value


class StudyRead(NamedTuple):
    """A study as it was read: `study` its id, `print` what the archive said of it, per item its instance or reason."""

    study: str
    print: str
    items: list[str]
    found: list[Instance | str]
    left_out: Counter[str]


def packed(one: StudyRead) -> bytes:
    """A line, with its end."""
    found = [_instance(each) if isinstance(each, Instance) else each for each in one.found]
    return orjson.dumps([one.study, one.print, one.items, found, dict(one.left_out)]) + b"\n"


def unpacked(line: bytes) -> StudyRead:
    """What `packed` made a line of."""
    study, print_, items, found, left_out = orjson.loads(line)
    instances = [one if isinstance(one, str) else _instance_of(one) for one in found]
    return StudyRead(study, print_, items, instances, Counter(left_out))


def _instance(one: Instance) -> list[Any]:
    values = [[name, [_value(value) for value in values]] for name, values in one.values]
    return [*one[:4], values, [_measure(measure) for measure in one.measures]]


def _instance_of(packed_: list[Any]) -> Instance:
    patient, study, series, uid, values, measures = packed_
    permitted = tuple(_same((name, tuple(_value_of(value) for value in these))) for name, these in values)
    return Instance(patient, study, series, uid, permitted, tuple(_measure_of(one) for one in measures))


@lru_cache(maxsize=65536)
def _same(pair: tuple[str, tuple[Value, ...]]) -> tuple[str, tuple[Value, ...]]:
    """The pair itself, the same object each time: instances say nearly the same, and a million of them shall fit into memory.

    The values of one name are of one type, so that 1 and True never meet.
    """
    return pair


def _value(value: Value) -> Any:
    return list(value) if isinstance(value, Coding) else value


def _value_of(value: Any) -> Value:
    return Coding(*value) if isinstance(value, list) else value


def _measure(one: Measure) -> list[Any]:
    unit = None if one.unit is None else list(one.unit)
    codes = [[role, list(coding)] for role, coding in one.codes]
    region = [list(pair) for pair in one.region]
    return [one.id, list(one.name), _value(one.value), unit, codes, region, one.software and list(one.software)]


def _measure_of(packed_: list[Any]) -> Measure:
    id_, name, value, unit, codes, region, software = packed_
    return Measure(
        id_,
        Coding(*name),
        Coding(*value) if isinstance(value, list) else value,
        Coding(*unit) if unit else None,
        tuple((role, Coding(*coding)) for role, coding in codes),
        tuple((name, value) for name, value in region),
        (software[0], software[1]) if software else None,
    )
