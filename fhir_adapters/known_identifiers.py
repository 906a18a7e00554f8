"""What a hospital's own records say of its patients, for the list that is looked for in all that would leave. Never written anywhere else.

of_resource(resource)       (kind, value) of a FHIR resource as the hospital has it
of_dicom(folder)            (kind, value) of the headers of a folder of DICOM files
"""

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fhir_adapters.fhir_elements import document
from fhir_adapters.pseudonyms import codice_fiscale_error

NAME, FISCAL_CODE, NUMBER, ADDRESS, ORDER, UID = (
    "name",
    "codice-fiscale",
    "record-number",
    "address",
    "accession-number",
    "uid",
)
_PEOPLE = frozenset(["Patient", "RelatedPerson", "Practitioner", "Person"])
_SHORTEST_ID = 5  # an id that is shorter is no identifier of its own


def of_resource(resource: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names, addresses, contacts and identifiers of a resource."""
    is_person = resource.get("resourceType") in _PEOPLE
    identifier = resource.get("id")
    if resource.get("resourceType") == "Patient" and isinstance(identifier, str) and len(identifier) >= _SHORTEST_ID:
        yield NUMBER, identifier
    if is_person:
        yield from _of_person(resource)
        for contact in _list(resource.get("contact")):
            yield from _of_person({"name": [contact.get("name")], **{k: contact.get(k) for k in ("telecom",)}})
            yield from _of_person({"address": [contact.get("address")]})
    for place in ("identifier", "masterIdentifier", "accessionIdentifier", "groupIdentifier"):
        for one in _list(resource.get(place)):
            yield from _of_identifier(one, is_person)
    if resource.get("resourceType") == "ImagingStudy":
        for series in _list(resource.get("series")):
            yield from _text(UID, series.get("uid"))
            for instance in _list(series.get("instance")):
                yield from _text(UID, instance.get("uid"))


def _of_person(person: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _list(person.get("name")):
        given = name.get("given")
        parts = [name.get("family"), *(given if isinstance(given, list) else [])]
        yield from _text(NAME, " ".join(part for part in parts if isinstance(part, str)))
        yield from _text(NAME, name.get("text"))
    for address in _list(person.get("address")):
        lines = address.get("line")
        for line in lines if isinstance(lines, list) else []:
            yield from _text(ADDRESS, line)
        yield from _text(ADDRESS, address.get("text"))
    for contact in _list(person.get("telecom")):
        value = contact.get("value")
        if isinstance(value, str):
            yield from _text("e-mail" if "@" in value else "telephone", value)


def _of_identifier(identifier: Mapping[str, Any], is_person: bool) -> Iterator[tuple[str, str]]:
    value, system = identifier.get("value"), identifier.get("system")
    if not isinstance(value, str) or system == document()["linkage"]["token"]:
        return
    if codice_fiscale_error(value) is None:
        yield FISCAL_CODE, value
    elif value.startswith("urn:oid:"):
        yield from _text(UID, value[8:])
    elif len(value) >= _SHORTEST_ID:
        yield from _text(NUMBER if is_person else ORDER, value)


def _text(kind: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value.strip():
        yield kind, value


def _list(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list, or the one object that stands in its place."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, dict)]


# DICOM keyword → kind
_TAGS = {
    "PatientName": NAME,
    "OtherPatientNames": NAME,
    "PatientBirthName": NAME,
    "PatientMotherBirthName": NAME,
    "ReferringPhysicianName": NAME,
    "PerformingPhysicianName": NAME,
    "OperatorsName": NAME,
    "PatientID": NUMBER,
    "OtherPatientIDs": NUMBER,
    "PatientAddress": ADDRESS,
    "PatientTelephoneNumbers": "telephone",
    "AccessionNumber": ORDER,
    "StudyID": ORDER,
    "StudyInstanceUID": UID,
    "SeriesInstanceUID": UID,
    "SOPInstanceUID": UID,
}


_INSIDE = "OtherPatientIDsSequence"
_LARGEST = 1 << 28  # bytes of a member of an archive


def of_dicom(place: Path) -> Iterator[tuple[str, str]]:
    """What the headers of a folder's files say, or of one file, zip archives among them; what is no DICOM says nothing."""
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if not path.is_file():
            continue
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    for member in archive.infolist():
                        with archive.open(member) as stream:
                            yield from _of_file(io.BytesIO(stream.read(_LARGEST)))
            else:
                yield from _of_file(path)
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError):
            continue  # an extraction tells of it; here it says nothing


def _of_file(file: "Path | IO[bytes]") -> list[tuple[str, str]]:
    import pydicom

    from fhir_adapters.dicom.headers import silent_pydicom

    with silent_pydicom(), pydicom.config.disable_value_validation():
        try:
            # also without the preamble, as old archives write it; what is no DICOM then has none of the elements
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_TAGS, _INSIDE], force=True)
            found = list(_of_header(header))
            for item in header.get(_INSIDE) or ():
                found += _of_header(item)
        except Exception:  # whatever a broken file makes pydicom raise
            return []
    return found


def _of_header(header: Any) -> Iterator[tuple[str, str]]:
    for keyword, kind in _TAGS.items():
        values = header.get(keyword)
        for value in values if isinstance(values, list | tuple) or type(values).__name__ == "MultiValue" else [values]:
            text = str(value).strip(" \0") if value is not None else ""
            if codice_fiscale_error(text) is None:
                yield FISCAL_CODE, text
            elif len(text) >= _SHORTEST_ID or kind == NAME:
                yield from _text(kind, text.replace("^", " ").replace("=", " ") if kind == NAME else text)
