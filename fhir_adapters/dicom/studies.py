"""Instances become FHIR R4 ImagingStudy resources, one per study, with a series each; and every file gets its outcome.

A study whose files name two patients is written for neither. The same instance in two files counts once; the same instance
UID under two series, studies or patients is believed for none of them. Which file came first makes no difference to a resource.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from fhir_adapters.allow_list import DicomAllowList
from fhir_adapters.dicom.values import Coding, Instance, Measure, Value
from fhir_adapters.outcomes import RESOURCE, outcome_of

Values = tuple[Value, ...]

EXTENSION = "urn:palmares:imaging:"
_SYSTEMS = {
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "IBSI": "urn:oid:1.2.840.10008.2.16.13",
    "NCIt": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
    "RADLEX": "http://radlex.org",
    "UMLS": "urn:oid:2.16.840.1.113883.6.86",
    "FMA": "urn:oid:2.16.840.1.113883.6.119",
    "UCUM": "http://unitsofmeasure.org",
}
_LATERALITY = {"L": "7771000", "R": "24028007", "B": "51440002"}
_ABSENT = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}


class FileOutcome(NamedTuple):
    """What became of a file: an outcome of `fhir_adapters.outcomes` and its reason."""

    outcome: str
    reason: str | None = None


def outcome(reason: str) -> FileOutcome:
    """The outcome that goes with a reason."""
    return FileOutcome(outcome_of(reason), reason)


def outcomes(found: Sequence[Instance | str]) -> list[FileOutcome]:
    """One outcome per file, in the same order. `found`: the file's instance, or the reason why there is none."""
    places: defaultdict[str, set[tuple[str, str, str]]] = defaultdict(set)
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for one in found:
        if isinstance(one, Instance):
            places[one.uid].add((one.patient, one.study, one.series))
            patients[one.study].add(one.patient)
    seen: set[str] = set()
    result = []
    for one in found:
        if isinstance(one, str):
            result.append(outcome(one))
        elif len(patients[one.study]) > 1:
            result.append(outcome("Q-DICOM-PATIENTS"))
        elif len(places[one.uid]) > 1:
            result.append(outcome("Q-DICOM-INSTANCE"))
        elif one.uid in seen:
            result.append(outcome("M-DICOM-DUPLICATE"))
        else:
            seen.add(one.uid)
            result.append(FileOutcome(RESOURCE))
    return result


class Writer:
    """Writes studies: `zone` is the scanners' clock (None: dates only); `instances`, whether they are listed one by one."""

    def __init__(self, allowed: DicomAllowList, zone: ZoneInfo | None = None, *, instances: bool = False) -> None:
        self._zone = zone
        self._instances = instances
        self._rules = {name: (one.over, one.words) for one in allowed.keep.values() for name in one.to}
        self._units = {name: one.unit for one in allowed.keep.values() for name in one.to if one.unit}

    def studies(self, found: Iterable[Instance]) -> list[dict[str, Any]]:
        """The ImagingStudy resources of the instances, sorted by id."""
        studies: defaultdict[str, list[Instance]] = defaultdict(list)
        for instance in found:
            studies[instance.study].append(instance)
        return [self._study(uid, studies[uid]) for uid in sorted(studies)]

    def _study(self, uid: str, instances: list[Instance]) -> dict[str, Any]:
        by_series: defaultdict[str, list[Instance]] = defaultdict(list)
        for instance in instances:
            by_series[instance.series].append(instance)
        values = {series: self._common(members) for series, members in by_series.items()}

        def number(series: str) -> tuple[bool, int, str]:
            given = values[series].get("series.number")
            return (True, 0, series) if given is None else (False, int(str(given[0])), series)

        order = sorted(by_series, key=number)
        modalities = {value[0] for one in values.values() if (value := one.get("series.modality"))}
        study: dict[str, Any] = {
            "resourceType": "ImagingStudy",
            "id": uid,
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
            "status": "available",
        }
        if modalities:
            study["modality"] = [coding(value) for value in sorted(modalities, key=str)]
        study["subject"] = {"reference": f"Patient/{instances[0].patient}"}
        started = self._started(self._common(instances), ("study-date", "study-time"), *_LATER_DATES)
        if started:
            study["started"] = started
        study["numberOfSeries"] = len(order)
        series = [self._series(uid, by_series[uid], values[uid]) for uid in order]
        study["numberOfInstances"] = sum(one["numberOfInstances"] for one in series)
        study["series"] = series
        return study

    def _series(self, uid: str, instances: list[Instance], values: Mapping[str, Values]) -> dict[str, Any]:
        series: dict[str, Any] = {"uid": uid}
        extensions = [
            {"url": EXTENSION + name, **self._typed(name, value)}
            for name in sorted(values)
            if "." not in name and name not in _WRITTEN_OTHERWISE
            for value in values[name]
        ]
        wait = _injection_to_series(values)
        if wait is not None:
            extensions.append({"url": EXTENSION + "injection-to-series", "valueQuantity": quantity(wait, "s")})
        extensions += [
            feature(measure, uid) for one in sorted(instances, key=_instance_order) for measure in one.measures
        ]
        if extensions:
            series["extension"] = extensions
        if "series.number" in values:
            series["number"] = values["series.number"][0]
        modality = values.get("series.modality")
        series["modality"] = coding(modality[0]) if modality else {"extension": [_ABSENT]}
        # an archive that lists a part tells how many there are
        told = values.get("series.numberOfInstances", (0,))[0]
        series["numberOfInstances"] = max(len(instances), int(str(told)))
        if "series.bodySite" in values:
            series["bodySite"] = coding(values["series.bodySite"][0])
        if "series.laterality" in values:
            side = str(values["series.laterality"][0])
            series["laterality"] = {"system": _SYSTEMS["SCT"], "code": _LATERALITY[side]}
        if "specimen-uid" in values:
            series["specimen"] = [{"reference": f"Specimen/{values['specimen-uid'][0]}"}]
        started = self._started(values, *_LATER_DATES)
        if started:
            series["started"] = started
        if self._instances:
            series["instance"] = [_instance(one) for one in sorted(instances, key=_instance_order)]
        return series

    def _common(self, instances: Sequence[Instance]) -> dict[str, Values]:
        """One value per name for all instances, by the element's `over`; a time belongs to its own date."""
        counts: defaultdict[str, Counter[Values]] = defaultdict(Counter)
        moments: defaultdict[str, set[tuple[Values, Values]]] = defaultdict(set)
        for values, many in Counter(instance.values for instance in instances).items():
            by_name = dict(values)
            for name, value in values:
                if name.endswith("-time"):
                    moments[name].add((by_name.get(_date_of(name), ()), value))
                if not name.startswith("series.instance."):
                    counts[name][value] += many
        common = {name: self._one(name, values) for name, values in counts.items()}
        for name, pairs in moments.items():
            day = common.get(_date_of(name), ())
            if self._rules[name][0] == "first":
                common[name] = min((pair for pair in pairs if pair[0] == day), default=min(pairs))[1]
        return common

    def _one(self, name: str, values: Counter[Values]) -> Values:
        over, words = self._rules.get(name, ("commonest", ()))
        if over == "first":
            return min(values, key=_sortable)
        if over == "any":
            concern = {word: place for place, word in enumerate(words)}
            return min(values, key=lambda value: (concern.get(str(value[0]), len(words)), _sortable(value)))
        return min(values, key=lambda value: (-values[value], _sortable(value)))

    def _typed(self, name: str, value: Value) -> dict[str, Any]:
        if isinstance(value, Coding):
            return {"valueCoding": coding(value)}
        if isinstance(value, bool):
            return {"valueBoolean": value}
        if isinstance(value, int | float):
            unit = self._units.get(name)
            return {"valueQuantity": quantity(value, unit)} if unit else {"valueDecimal": value}
        if name.endswith("-date"):
            return {"valueDate": value}
        if name.endswith("-time"):
            return {"valueTime": value}
        if name.endswith("-uid"):
            return {"valueOid": f"urn:oid:{value}"}
        return {"valueString": value}

    def taken(self, instance: Instance) -> str | None:
        """When the study of an instance began, as a FHIR dateTime."""
        return self._started(dict(instance.values), ("study-date", "study-time"), *_LATER_DATES)

    def _started(self, values: Mapping[str, Values], *pairs: tuple[str, str]) -> str | None:
        """The first of the pairs (date, time) whose date is there, as a FHIR dateTime."""
        for date_name, time_name in pairs:
            if date_name in values:
                day = str(values[date_name][0])
                moment = str(values[time_name][0]) if time_name in values else None
                return self._date_time(day, moment, values.get("offset"))
        return None

    def _date_time(self, day: str, moment: str | None, offset: Values | None) -> str:
        if moment is None or (offset is None and self._zone is None):
            return day
        moment = moment.replace(":60", ":59")
        if offset is not None:
            return f"{day}T{moment}{offset[0]}"
        local = datetime.fromisoformat(f"{day}T{moment.split('.')[0]}").replace(tzinfo=self._zone)
        zone = local.isoformat()[19:]
        return (
            f"{day}T{moment}{zone}" if len(zone) == len("+00:00") else day
        )  # local mean time has seconds in its offset


_LATER_DATES = (("series-date", "series-time"), ("acquisition-date", "acquisition-time"))
_OF_SPECIMEN = ("specimen-type", "specimen-site", "specimen-collected", "specimen-received")
_WRITTEN_OTHERWISE = frozenset(["study-date", "study-time", "offset", *_OF_SPECIMEN])


def _date_of(name: str) -> str:
    return name.removesuffix("-time") + "-date"


def coding(value: Value) -> dict[str, str]:
    """The FHIR Coding of a code."""
    if not isinstance(value, Coding):
        raise TypeError("the allow-list writes a coded element by another kind")
    return {"system": _SYSTEMS[value.scheme], "code": value.code, "display": value.display}


def quantity(value: float, unit: str, shown: str = "") -> dict[str, Any]:
    """A FHIR Quantity in a UCUM unit."""
    return {"value": value, "unit": shown or unit, "system": _SYSTEMS["UCUM"], "code": unit}


def feature(measure: Measure, report: str) -> dict[str, Any]:
    """What the series of a report says of each measurement: which Observation it is, on which series, of what, by what."""
    codes, region = dict(measure.codes), dict(measure.region)
    parts: list[dict[str, Any]] = [{"url": "observation", "valueReference": {"reference": f"Observation/{measure.id}"}}]
    parts.append({"url": "report", "valueOid": f"urn:oid:{report}"})
    if "series-uid" in region:
        parts.append({"url": "series", "valueOid": f"urn:oid:{region['series-uid']}"})
    if "tracking-uid" in region:
        parts.append({"url": "tracking", "valueOid": f"urn:oid:{region['tracking-uid']}"})
    parts += [{"url": role, "valueCoding": coding(codes[role])} for role in ("finding", "site") if role in codes]
    if measure.software:
        parts.append({"url": "software", "valueString": " ".join(filter(None, measure.software))})
    return {"url": EXTENSION + "feature", "extension": parts}


def _injection_to_series(values: Mapping[str, Values]) -> float | None:
    """Seconds from the injection to the start of the series, over which SUV counts the decay; None when it cannot be said."""
    if not {"injection-time", "series-time"} <= values.keys():
        return None
    day = str(values.get("series-date", ("1970-01-01",))[0])
    begun = datetime.fromisoformat(f"{day}T{str(values['series-time'][0]).replace(':60', ':59')}")
    injected_on = str(values.get("injection-date", (day,))[0]) if "series-date" in values else day
    injected = datetime.fromisoformat(f"{injected_on}T{str(values['injection-time'][0]).replace(':60', ':59')}")
    seconds = (begun - injected).total_seconds()
    if seconds < 0 and "injection-date" not in values:
        seconds += _DAY  # over midnight
    return round(seconds, 3) if 0 <= seconds < _DAY else None


_DAY = 86400


def _instance(one: Instance) -> dict[str, Any]:
    values = dict(one.values)
    sop_class = values.get("series.instance.sopClass")
    instance: dict[str, Any] = {"uid": one.uid}
    instance["sopClass"] = (
        {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{sop_class[0]}"} if sop_class else {"extension": [_ABSENT]}
    )
    if "series.instance.number" in values:
        instance["number"] = values["series.instance.number"][0]
    return instance


def _instance_order(one: Instance) -> tuple[float, str]:
    number = dict(one.values).get("series.instance.number")
    return (float(str(number[0])) if number else float("inf"), one.uid)


def _sortable(value: Values) -> tuple[tuple[bool, float, str], ...]:
    """Numbers by size, everything else by its text."""
    return tuple((False, one, "") if isinstance(one, int | float) else (True, 0.0, str(one)) for one in value)
