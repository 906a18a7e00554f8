"""FHIR of a hospital without what identifies: the elements of `fhir_elements.toml`, ids as pseudonyms, birth dates cut.

    deidentifier = Deidentifier.for_site(key, zone="Europe/Rome", settings={"pseudonyms": "toolkit"})
    deidentifier.resource({"resourceType": "Patient", "id": "4711", …})   → what may pass, or None when the whole resource may not
    deidentifier.counts                                                   → (resource type, element, reason code): how many were left out

The walk is compiled once per resource type: one dictionary from element name to what is done with its value. A value that has
the wrong kind of JSON, or is none of its type, is not copied and not hidden: a neutral stand-in of the same wrong kind takes its place,
so that landing, validation and mapping refuse the record for the same reason as they would have refused the hospital's.

Settings (of a `[[source]]` that yields a hospital's FHIR; see SETTINGS):

    pseudonyms           "toolkit": ids become HMAC pseudonyms here. "hospital": the hospital's gateway has replaced them already; they stay
    patient_identifier   the identifier system of the record number: the patient's pseudonym is then that of the record number, as in
                         DICOM, HL7 v2 and tables, not that of the server's id. Takes `learn` for every Patient first
    record_number_digits 123 and 00123 are one patient where the site says how many digits a number has
    code_systems         addresses of the site's own code systems whose codes may pass
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from fhir_adapters.allow_list import AllowListError
from fhir_adapters.base import Setting
from fhir_adapters.births import birth_date
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_elements import ANY, WITHHELD, codes, document, forms, gtin, reason_of, rules, vocabularies
from fhir_adapters.knowledge import table
from fhir_adapters.landing.rules import id_text
from fhir_adapters.landing.rules import resource_types as r4_types
from fhir_adapters.pseudonyms import LinkageKey, codice_fiscale_error
from fhir_adapters.record_numbers import record_number
from fhir_adapters.shown_names import shown_name
from fhir_adapters.views.elements import BOOLEANS, NUMBERS, TIMES, Element, element, elements

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

# for the `settings` of every source that yields a hospital's FHIR
SETTINGS: Mapping[str, Setting] = {
    "pseudonyms": Setting(
        str, '"toolkit": ids are replaced here, with the site\'s key; "hospital": its gateway has done it', "toolkit"
    ),
    "patient_identifier": Setting(
        str, "identifier system of the record number; patients are then the same as in DICOM and HL7 v2", ""
    ),
    "record_number_digits": Setting(int, "digits of a record number; 0: every number as it is written", 0),
    "code_systems": Setting(list, "the site's own code systems, whose codes may pass"),
}

_MOST = 1 << 18  # entries of a memory, after which it begins anew
_REFERENCE = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://\S*/|/)?([A-Z][A-Za-z]{2,40})/([^/?#\s]{1,64})(?:/_history/[^/?#\s]+)?"
)
_CONDITIONAL = re.compile(r"(?:[a-z][a-z0-9+.-]*://\S*/)?([A-Z][A-Za-z]{2,40})\?.+", re.DOTALL)
_URN = re.compile(r"urn:(uuid|oid):(.+)", re.DOTALL)
_ID = re.compile(r"[A-Za-z0-9.\-]{1,64}")
# an address that may be shown in the hospital: lower-case words and short numbers; others may be made of a name
_ADDRESS = re.compile(
    r"https?://[a-z0-9.:-]{1,80}(?:/(?:[a-z][a-z0-9-]{0,30}|CodeSystem|NamingSystem|R4))*/?|urn:oid:[0-9]{1,6}(?:\.[0-9]{1,6}){2,15}|urn:[a-z:-]{1,60}"
)
_HEX = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,5}")
_LETTERS = re.compile(r"[^\W\d_]+")
_UNIT = re.compile(r"[A-Za-zµμ0-9%°/.*^{}\[\]()' _+\-²³×]+")
_DATE = r"[0-9]{4}(?:-[0-9]{1,2}(?:-[0-9]{1,2})?)?"
_CLOCK = r"[0-9]{1,2}:[0-9]{1,2}(?::[0-9]{1,2}(?:[.,][0-9]{1,9})?)?"
_MOMENT = re.compile(
    rf"(?:{_DATE}|[0-9]{{1,2}}[/.-][0-9]{{1,2}}[/.-][0-9]{{2,4}})(?:[T ]{_CLOCK} ?(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}})?)?"
)
_TIME = re.compile(_CLOCK)
_YEAR = re.compile(r"[0-9]{4}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")

Work = Callable[[Any], Any]  # a JSON value → what may pass of it; None: nothing


class Deidentifier:
    """What takes resources of one site one by one. Not for threads: each process has its own."""

    def __init__(
        self,
        key: "SiteKey | None",
        *,
        zone: str = "",
        settings: Mapping[str, Any] | None = None,
        linkage: LinkageKey | None = None,
    ) -> None:
        settings = settings or {}
        mode = settings.get("pseudonyms") or "toolkit"
        if mode not in ("toolkit", "hospital"):
            raise PalmaresError("E-SRC-02", "pseudonyms", detail='it is neither "toolkit" nor "hospital"')
        if key is None and mode == "toolkit":
            raise PalmaresError("E-SRC-03", "pseudonyms")
        self.zone = zone
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.undeclared: Counter[str] = (
            Counter()
        )  # code systems that nobody declared: for the hospital's eyes, never written
        self.patients: dict[str, str] = {}  # Patient.id → record number, as learned
        self._key = key
        self._linkage = linkage
        self._hashed = mode == "toolkit"
        self._record_number = settings.get("patient_identifier") or ""
        self._digits = settings.get("record_number_digits") or 0
        self._declared = frozenset(settings.get("code_systems") or ())
        self._plans: dict[str, Work | None] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._references: dict[tuple[str, str], str] = {}
        self._codings: dict[tuple[Any, Any], tuple[str | None, str | None]] = {}
        self._units: dict[str, bool] = {}
        self._urns: Mapping[str, tuple[str, str]] = {}
        self._locals: dict[str, str] = {}  # ids of contained resources
        self._type = ""
        rule = document()
        self._screen = re.compile("|".join(rule["screen"]["patterns"]), re.ASCII)
        self._unit_words = frozenset(rule["units"]["words"])
        self._longest_unit = rule["units"]["longest"]
        self._regions = frozenset(rule["regions"]["names"])
        self._begin = tuple(rule["systems"]["begin"])
        self._linkage_systems = frozenset(rule["linkage"]["systems"])
        self._token_system = rule["linkage"]["token"]
        self._birth = rule["birth"]
        identifying = (row["code"] for row in table("codes", "fhir", "identifying_codes.csv"))
        self._telling_codes = frozenset([*rule["birth"]["age_codes"], *rule["birth"]["date_codes"], *identifying])
        self._urn_types = {name: kind for kind, names in rule["urn"].items() for name in names}

    @classmethod
    def for_site(cls, key: "SiteKey | None", *, zone: str = "", settings: Mapping[str, Any] | None = None) -> Self:
        """The de-identifier of a site; the linkage key comes from the environment, where there is one.

        Raises E-SRC-02 (a setting does not fit), E-SRC-03 (no key, and the hospital has not replaced the ids), E-KEY-03 (the
        linkage key is none).
        """
        return cls(key, zone=zone, settings=settings, linkage=LinkageKey.of_environment())

    # ------------------------------------------------------------------------------------------- resources

    def resource(self, resource: dict[str, Any], *, urns: Mapping[str, tuple[str, str]] | None = None) -> Any:
        """What may pass of one resource that is no Bundle. Of a type that nothing reads: type and id, so that all can be counted.

        `urns`: what the urn: addresses of the Bundle around it stand for, as (type, id). The resource is not changed.
        """
        kind = resource.get("resourceType")
        if not isinstance(kind, str):
            return {} if kind is None else {"resourceType": _wrong(kind)}
        if kind not in self._plans:
            self._plans[kind] = self._plan(kind) if kind in r4_types() else None
        plan = self._plans[kind]
        if plan is None:
            if kind not in r4_types():
                self.counts["?", "", "technical"] += 1
                return self._unknown(kind, resource)
            self.counts[kind, "", "not-needed"] += 1
            self._type = kind
            return {"resourceType": kind} | ({"id": self._id(resource["id"])} if "id" in resource else {})
        self._urns = urns or {}
        self._locals.clear()
        self._type = kind
        return plan(resource)

    def _unknown(self, kind: str, resource: Mapping[str, Any]) -> dict[str, Any]:
        """A resource of a type that R4 does not have: its type, when its words are harmless, and its id."""
        self._type = shown = (
            kind if not kind or (kind.isidentifier() and shown_name(kind) == kind) else WITHHELD.title()
        )
        return {"resourceType": shown} | ({"id": self._id(resource["id"])} if "id" in resource else {})

    def learn(self, resource: Mapping[str, Any]) -> None:
        """Note the record number of a Patient, so that references to it find its pseudonym. For `patient_identifier`."""
        number = self._number_of(resource)
        identifier = id_text(resource.get("id"))
        if number and identifier:
            self.patients[identifier] = number

    def _number_of(self, patient: Mapping[str, Any]) -> str | None:
        identifiers = patient.get("identifier")
        if not self._record_number or not isinstance(identifiers, list):
            return None
        for one in identifiers:
            if isinstance(one, dict) and one.get("system") == self._record_number:
                value = one.get("value")
                if isinstance(value, str) and value.strip(" \t\r\n\0"):
                    return record_number(value, self._digits)
        return None

    # ------------------------------------------------------------------------------------------ pseudonyms

    def pseudonym(self, kind: str, identifier: str) -> str:
        """The id that stands for the id of a resource of this type."""
        known = self._ids.get((kind, identifier))
        if known is None:
            if len(self._ids) > _MOST:
                self._ids.clear()
            known = self._ids[kind, identifier] = self._pseudonym(kind, identifier)
        return known

    def _pseudonym(self, kind: str, identifier: str) -> str:
        if self._hashed:
            if kind == "Patient":
                identifier = self.patients.get(identifier, identifier)
            return self._hash(kind.lower(), identifier)
        if _ID.fullmatch(identifier) and codice_fiscale_error(identifier) is not None:
            return identifier
        return self._hash("id", identifier)

    def _hash(self, kind: str, value: str) -> str:
        """32 hex digits; without a key (the hospital has its own) only that there was something."""
        if self._key is None:
            return WITHHELD
        try:
            return self._key.pseudonym(kind, value)
        except ValueError:  # nothing but blanks
            return WITHHELD

    def _id(self, value: Any) -> Any:
        text = id_text(value)
        if text is not None:
            return self.pseudonym(self._type, text)
        self.counts[self._type, "id", "wrong-kind"] += 1
        # an id that is none stays none (it holds a blank), and stays another than others
        return f"{self._hash('id', repr(value))[:16]} " if isinstance(value, str) else _wrong(value)

    def _reference(self, text: str, name: str) -> str:
        if text.startswith("#") and len(text) > 1:
            return "#" + self._inner(text[1:])
        at = name if text.startswith("urn:") else ""
        if self._urns and text in self._urns:
            kind, identifier = self._urns[text]
            return f"{kind}/{self.pseudonym(kind, identifier)}"
        known = self._references.get((text, at))
        if known is None:
            if len(self._references) > _MOST:
                self._references.clear()
            known = self._references[text, at] = self._pointed(text, name)
        return known

    def _pointed(self, text: str, name: str) -> str:
        if found := _REFERENCE.fullmatch(text):
            if found[1] in r4_types():
                return f"{found[1]}/{self.pseudonym(found[1], found[2])}"
        elif text.startswith("#"):
            return text[:1]  # of the resource itself; contained ones are met above
        elif found := _URN.fullmatch(text):
            kind = self._urn_types.get(name)
            if kind is not None and id_text(found[2]) is not None:
                return f"{kind}/{self.pseudonym(kind, found[2])}"
            return f"urn:{found[1]}:{self._hash('urn', found[2])}"
        elif (found := _CONDITIONAL.fullmatch(text)) and found[1] in r4_types():
            return f"{found[1]}?identifier={self._hash('identifier', text)}"
        return WITHHELD

    def _inner(self, identifier: str) -> str:
        """The id of a contained resource, known only to the one around it: their numbers in the order in which they are met."""
        return self._locals.setdefault(identifier, f"c{len(self._locals) + 1}")

    # -------------------------------------------------------------------------------------------- compiling

    def _plan(self, kind: str) -> Work | None:
        if kind not in rules() or kind == ANY:
            return None
        walk = self._struct(kind, kind, "", kind, "")
        telling = self._telling if kind == "Observation" else None

        def whole(resource: dict[str, Any]) -> Any:
            if kind == "Patient" and self._record_number and (number := self._number_of(resource)):
                identifier = id_text(resource.get("id"))
                if identifier is not None:
                    self.patients.setdefault(identifier, number)
            out = walk(resource)
            if telling is not None:
                telling(out)
            return out

        return whole

    def _struct(self, kind: str, root: str, above: str, type_: str, place: str) -> Work:
        """The walk of an object of FHIR type `type_`, which stands at `above` of the rule `root` and at `place` of the resource `kind`."""
        rule = rules()[root]
        is_whole = root == type_ and type_ in r4_types()
        works: dict[str, Work] = {"resourceType": _same} if is_whole else {}
        dropped: dict[str, tuple[str, str, str]] = {}
        for one in elements(type_):
            path = f"{above}{one.name}"
            work = self._element(kind, root, path, one, is_whole, f"{place}{one.name}")
            if work is not None:
                works[one.name] = work
            else:
                why = rule.left_out.get(path) or _any_reason(one.name, bool(above) or not is_whole)
                dropped[one.name] = (kind, f"{place}{one.name}", reason_of(why))
            dropped[f"_{one.name}"] = (kind, f"{place}_{one.name}", "free-text")
        unknown = (kind, f"{place}unknown", "free-text")
        wrong = (kind, place.rstrip("."), "wrong-kind")
        counts, get = self.counts, works.get

        def walk(value: Any) -> Any:
            if type(value) is not dict:
                counts[wrong] += 1
                return _wrong(value)
            out = {}
            for name, one in value.items():
                if one is None:
                    continue
                work = get(name)
                if work is not None:
                    got = work(one)
                    if got is not None:
                        out[name] = got
                    continue
                place = dropped.get(name)
                if place is None:
                    counts[unknown] += 1
                    out[WITHHELD] = True
                else:
                    counts[place] += 1
                    if name[0] == "_" and (absent := _absent(one)):
                        out[name] = absent
            return out

        return walk

    def _element(self, kind: str, root: str, path: str, one: Element, is_whole: bool, place: str) -> Work | None:
        """What is done with an element; None: it does not pass."""
        rule = rules()[root]
        if one.name == "modifierExtension":
            inner = self._modifier(kind, place)
        elif is_whole and path in rules()[ANY].keep:
            if path == "id":
                return self._id
            if path == "contained":
                return self._contained(kind)
            inner = self._there if path in rules()[ANY].treated else self._of_type(kind, root, path, one, place)
        elif path in rule.keep:
            how = rule.treated.get(path)
            inner = self._treated(kind, place, how, one) if how else self._of_type(kind, root, path, one, place)
        elif rule.passes(path):
            inner = self._struct(kind, root, f"{path}.", one.type, f"{place}.")
        else:
            return None
        return self._many(kind, place, inner) if one.many else inner

    def _many(self, kind: str, path: str, work: Work) -> Work:
        counts, wrong = self.counts, (kind, path, "wrong-kind")

        def each(value: Any) -> Any:
            if type(value) is not list:
                counts[wrong] += 1
                return _wrong(value)
            return [got for one in value if one is not None and (got := work(one)) is not None] or None

        return each

    def _of_type(self, kind: str, root: str, path: str, one: Element, place: str) -> Work:
        """What is done with a value by its FHIR type."""
        type_ = "Quantity" if one.type in ("Age", "Duration", "Count", "Distance") else one.type
        if type_ in TIMES:
            return self._text(kind, place, _TIME if type_ == "time" else _MOMENT)
        if type_ in BOOLEANS:
            return self._kind(kind, place, bool)
        if type_ in NUMBERS:
            return self._kind(kind, place, int, float)
        if type_ == "code":
            return self._code(kind, place, codes(f"{root}.{path}"))
        if type_ == "id":  # meta.versionId; ids of resources are met elsewhere
            return self._text(kind, place, _VERSION)
        if type_ == "Coding":
            return self._coding(kind, place)
        if type_ == "Reference":
            return self._pointing(kind, place, one.name)
        if type_ == "Extension":
            return self._extension(kind, place)
        if type_ in rules():
            return self._struct(kind, type_, "", type_, f"{place}.")
        raise AllowListError(f"fhir_elements.toml keeps {root}.{path}, a {type_}, and says not how")

    # ------------------------------------------------------------------------------------- values by type

    def _kind(self, kind: str, path: str, *kinds: type) -> Work:
        counts, wrong = self.counts, (kind, path, "wrong-kind")

        def same(value: Any) -> Any:
            if type(value) in kinds:
                return value
            counts[wrong] += 1
            return _wrong(value)

        return same

    def _text(self, kind: str, path: str, form: re.Pattern[str]) -> Work:
        counts, wrong, fits = self.counts, (kind, path, "wrong-kind"), form.fullmatch

        def text(value: Any) -> Any:
            if type(value) is str and fits(value):
                return value
            counts[wrong] += 1
            return _wrong(value)

        return text

    def _code(self, kind: str, path: str, known: frozenset[str]) -> Work:
        counts, wrong = self.counts, (kind, path, "wrong-kind")

        def code(value: Any) -> Any:
            if type(value) is str and value in known:
                return value
            counts[wrong] += 1
            return _wrong(value)

        return code

    def _pointing(self, kind: str, path: str, name: str) -> Work:
        counts = self.counts
        wrong, display = (kind, path, "wrong-kind"), (kind, f"{path}.display", "identifying")
        logical, unknown = (kind, f"{path}.identifier", "identifying"), (kind, f"{path}.unknown", "free-text")
        parts = {one.name for one in elements("Reference")} | {f"_{one.name}" for one in elements("Reference")}

        def point(value: Any) -> Any:
            if type(value) is not dict:
                counts[wrong] += 1
                return _wrong(value)
            out: dict[str, Any] = {}
            text = value.get("reference")
            if type(text) is str:
                out["reference"] = self._reference(text, name)
            elif text is not None:
                counts[wrong] += 1
                out["reference"] = _wrong(text)
            if len(value) > 1 or not out:
                identifier = value.get("identifier")
                if identifier is not None:
                    counts[logical] += 1
                    if not out and (number := self._number_in(identifier, name)):
                        out["reference"] = f"Patient/{self._hash('patient', number)}"
                    if not out:
                        out["identifier"] = self._logical(identifier)
                if value.get("display") is not None:
                    counts[display] += 1
                    if not out:
                        out["display"] = WITHHELD
                if not value.keys() <= parts:
                    counts[unknown] += 1
                    out[WITHHELD] = True
            return out

        return point

    def _number_in(self, identifier: Any, name: str) -> str | None:
        """The record number by which a reference names its patient, where the site has said whose system that is."""
        if not (self._hashed and self._record_number and self._urn_types.get(name) == "Patient"):
            return None
        if type(identifier) is not dict or identifier.get("system") != self._record_number:
            return None
        value = identifier.get("value")
        return record_number(value, self._digits) or None if type(value) is str else None

    def _logical(self, identifier: Any) -> Any:
        """A reference by business identifier: the same one gives the same pseudonym, and leads nowhere."""
        if type(identifier) is not dict:
            return _wrong(identifier)
        parts = "\0".join(str(identifier.get(name) or "") for name in ("system", "value"))
        return {"system": f"urn:palmares:{WITHHELD}", "value": self._hash("identifier", parts)}

    def _coding(self, kind: str, path: str) -> Work:
        counts = self.counts
        wrong = (kind, path, "wrong-kind")
        places = {name: (kind, f"{path}.{name}", "technical") for name in ("version", "id", "extension")}
        places["display"] = (kind, f"{path}.display", "free-text")
        for name in ("system", "code", "userSelected", *tuple(places)):
            places[f"_{name}"] = (kind, f"{path}._{name}", "free-text")
        unknown = (kind, f"{path}.unknown", "free-text")
        system_place, code_place = (kind, f"{path}.system", "undeclared"), (kind, f"{path}.code", "no-form")

        def coding(value: Any) -> Any:
            if type(value) is not dict:
                counts[wrong] += 1
                return _wrong(value)
            system, code = value.get("system"), value.get("code")
            out: dict[str, Any] = {}
            at = (system, code)
            try:
                known = self._codings.get(at)
            except TypeError:  # an object or a list where a text belongs
                known = (_wrong(system), _wrong(code))
            if known is None:
                if len(self._codings) > _MOST:
                    self._codings.clear()
                known = self._codings[at] = self._passing(system, code)
            if known[0] is not None:
                out["system"] = known[0]
                if known[0] != system:
                    counts[system_place] += 1
                    if type(system) is str:
                        self.undeclared[
                            system if _ADDRESS.fullmatch(system) else "(an address that may name somebody)"
                        ] += 1
            if known[1] is not None:
                out["code"] = known[1]
                if known[1] != code:
                    counts[code_place] += 1
            for name, one in value.items():
                if name in ("system", "code") or one is None:
                    continue
                if name == "userSelected":
                    out[name] = one if type(one) is bool else _wrong(one)
                    continue
                place = places.get(name)
                counts[unknown if place is None else place] += 1
                if place is None:
                    out[WITHHELD] = True
                elif name == "display" and code is None:
                    out[name] = WITHHELD
            return out

        return coding

    def _passing(self, system: Any, code: Any) -> tuple[Any, Any]:
        """System and code as they pass."""
        if (system is not None and type(system) is not str) or (code is not None and type(code) is not str):
            return _stand_in(system), _stand_in(code)
        names, shown = self._vocabularies(system)
        if code is None:
            return shown, None
        if "UCUM" in names and self._is_unit(code):
            return shown, code
        form = forms()
        fits = any(form[name].fits(code) for name in names if name in form)
        if fits and (not self._screen.search(code) or not {"else", "none", "declared", "HL7"} & set(names)):
            return shown, code
        return shown, f"{WITHHELD}-{self._hash('code', f'{system}|{code}')[:12]}"

    def _vocabularies(self, system: str | None) -> tuple[tuple[str, ...], str | None]:
        """Which forms the codes of a system may have, and how the system may be named."""
        if system is None:
            return ("none",), None
        names = vocabularies().get(system)
        if names is not None:
            return names, system
        if system in self._declared:
            return ("declared",), system
        if system.startswith("http://snomed.info/sct"):
            edition = re.fullmatch(r"http://snomed\.info/sct/[0-9]{6,18}(/version/[0-9]{8})?", system)
            return ("SNOMED",), system if edition else "http://snomed.info/sct"
        if system.startswith(self._begin) and re.fullmatch(r"[A-Za-z0-9:/._-]{1,120}", system):
            return ("declared" if system.startswith("urn:palmares:") else "HL7",), system
        return (), f"urn:palmares:{WITHHELD}:{self._hash('system', system)[:12]}"

    # --------------------------------------------------------------------------- what the list names otherwise

    def _treated(self, kind: str, path: str, how: str, one: Element) -> Work:
        if how == "there":
            return (
                self._document if path == "content" else self._attachment if one.type == "Attachment" else self._there
            )
        if how == "linkage":
            return self._linkage_of(kind, path)
        if how == "uid":
            return self._uid_of(kind, path) if one.type == "Identifier" else self._uid
        if how == "month":
            return self._month(kind, path)
        choose: dict[str, Callable[[str], bool]] = {
            "region": self._regions.__contains__,
            "country": _is_country,
            "gtin": gtin,
            "unit": self._is_unit,
            "system": lambda text: self._vocabularies(text)[1] == text,
        }
        fits, counts, refused = choose[how], self.counts, (kind, path, "no-form")

        def chosen(value: Any) -> Any:
            if type(value) is not str:
                counts[refused] += 1
                return _wrong(value)
            if fits(value):
                return value
            counts[refused] += 1
            return WITHHELD if how == "unit" else None

        return chosen

    def _there(self, value: Any) -> Any:
        """Only that there is a text; a blank one stays blank, so that validation refuses it."""
        if type(value) is str:
            return WITHHELD if value.strip() else ""
        return _wrong(value)

    def _attachment(self, value: Any) -> Any:
        return {"title": WITHHELD} if type(value) is dict else _wrong(value)

    def _document(self, value: Any) -> Any:
        return {"attachment": {"title": WITHHELD}} if type(value) is dict else _wrong(value)

    def _modifier(self, kind: str, path: str) -> Work:
        """It turns the meaning round: its address stays, so that the mapping leaves the record out."""
        counts, place = self.counts, (kind, f"{path}.value", "free-text")

        def modifier(value: Any) -> Any:
            if type(value) is not dict:
                return _wrong(value)
            if len(value) > 1:
                counts[place] += 1
            url = value.get("url")
            known = isinstance(url, str) and url.startswith("http://hl7.org/fhir/") and _plain_url(url)
            return {"url": url if known else f"urn:palmares:{WITHHELD}"}

        return modifier

    def _contained(self, kind: str) -> Work:
        kept = frozenset(document()["contained"]["types"])
        counts, place, wrong = self.counts, (kind, "contained", "not-needed"), (kind, "contained", "wrong-kind")

        def each(value: Any) -> Any:
            if type(value) is not list:
                counts[wrong] += 1
                return _wrong(value)
            out = []
            for one in value:
                inner = one.get("resourceType") if type(one) is dict else None
                if not isinstance(inner, str) or inner not in kept:
                    counts[place] += 1
                    continue
                if inner not in self._plans:
                    self._plans[inner] = self._plan(inner)
                plan = self._plans[inner]
                assert plan is not None  # the list keeps what may be contained
                outer, self._type = self._type, inner
                got = plan(one)
                self._type = outer
                if type(one.get("id")) is str:
                    got["id"] = self._inner(one["id"])
                out.append(got)
            return out or None

        return each

    def _extension(self, kind: str, path: str) -> Work:
        """Only what [extensions] lists, each with its value treated by its type."""
        listed = document()["extensions"]
        around = frozenset(name.partition(" ")[0] for name in listed if " " in name)
        counts, place = self.counts, (kind, path, "free-text")
        works: dict[str, Work] = {}  # made when they are met: what an extension holds may hold extensions

        def extension(value: Any, above: str = "") -> Any:
            url = value.get("url") if type(value) is dict else None
            if type(url) is str:
                name = f"{above}{url}"
                rule = listed.get(name)
                if rule is not None and (one := value.get(rule["element"])) is not None:
                    if name not in works:
                        works[name] = self._extended(kind, f"{path}.{rule['element']}", rule)
                    return {"url": url, rule["element"]: works[name](one)}
                if url in around and not above and type(value.get("extension")) is list:
                    inner = [got for part in value["extension"] if (got := extension(part, f"{url} "))]
                    if inner:
                        return {"url": url, "extension": inner}
            counts[place] += 1
            return None

        return extension

    def _extended(self, kind: str, path: str, rule: Mapping[str, str]) -> Work:
        one = element("Extension", rule["element"])
        assert one is not None  # the list names elements of Extension
        if one.type == "code":
            return self._code(kind, path, frozenset(rule["codes"].split()))
        return self._of_type(kind, "Extension", one.name, one, path)

    def _linkage_of(self, kind: str, path: str) -> Work:
        counts = self.counts
        left, wrong = (kind, path, "identifying"), (kind, path, "fiscal-code-invalid")

        def identifier(value: Any) -> Any:
            if type(value) is not dict:
                counts[left] += 1
                return _wrong(value)
            system, text = value.get("system"), value.get("value")
            if system == self._token_system and type(text) is str and _HEX.fullmatch(text):
                return {"system": system, "value": text}
            counts[left] += 1
            if type(text) is str and codice_fiscale_error(text) is None:  # whatever the hospital calls its system
                if self._linkage is not None:
                    return {"system": self._token_system, "value": self._linkage.token(text)}
            elif system in self._linkage_systems:
                counts[wrong] += 1
            return None

        return identifier

    def _uid_of(self, kind: str, path: str) -> Work:
        counts, left = self.counts, (kind, path, "identifying")

        def identifier(value: Any) -> Any:
            if type(value) is not dict:
                return _wrong(value)
            text = value.get("value")
            if value.get("system") == "urn:dicom:uid" and type(text) is str and text.startswith("urn:oid:"):
                return {"system": "urn:dicom:uid", "value": "urn:oid:" + self._uid(text[8:])}
            counts[left] += 1
            return None

        return identifier

    def _uid(self, value: Any) -> Any:
        """A DICOM UID hashed anew; one that the hospital's gateway has made stays when it is one."""
        if type(value) is not str:
            return _wrong(value)
        if not self._hashed:
            return value if re.fullmatch(r"[0-9]+(\.[0-9]+){1,30}", value) and len(value) <= 64 else WITHHELD
        assert self._key is not None
        try:
            return self._key.uid(value)
        except ValueError:
            return WITHHELD

    def _month(self, kind: str, path: str) -> Work:
        counts = self.counts
        day, old, wrong = (kind, path, "day-cut"), (kind, path, "over-89"), (kind, path, "wrong-kind")

        def month(value: Any) -> Any:
            if type(value) is not str or not _MOMENT.fullmatch(value) or not _YEAR.match(value):
                counts[wrong] += 1
                return _wrong(value)
            if len(value) > 4 and not _MONTH.match(value):
                return _wrong(value)
            cut = birth_date(value)
            if cut != value:
                counts[day if value.startswith(cut) and len(cut) == 7 else old] += 1
            return cut

        return month

    def _telling(self, observation: Any) -> None:
        """What an observation says by its code: an age above 89 becomes 90, a birth date is cut, a name or address goes."""
        self._told(observation)
        components = observation.get("component")
        for component in components if type(components) is list else ():
            self._told(component)

    def _told(self, part: Any) -> None:
        code = part.get("code") if type(part) is dict else None
        codings = code.get("coding") if type(code) is dict else None
        for coding in codings if type(codings) is list else ():
            said = coding.get("code") if type(coding) is dict else None
            if type(said) is not str or said not in self._telling_codes:
                continue
            place, most = ("Observation", "value"), self._birth["oldest_age"]
            if said in self._birth["age_codes"]:
                quantity = part.get("valueQuantity")
                if type(quantity) is dict and type(quantity.get("value")) in (int, float) and quantity["value"] > most:
                    quantity["value"] = most
                    self.counts[*place, "over-89"] += 1
                if type(part.get("valueInteger")) is int and part["valueInteger"] > most:
                    part["valueInteger"] = most
                    self.counts[*place, "over-89"] += 1
            elif said in self._birth["date_codes"]:
                if type(born := part.get("valueDateTime")) is str:
                    whole = _MONTH.match(born) or _YEAR.fullmatch(born)
                    part["valueDateTime"] = birth_date(born) if whole else WITHHELD
                    self.counts[*place, "day-cut"] += 1
                part.pop("valuePeriod", None)
            elif values := [name for name in part if name.startswith("value")]:
                for name in values:
                    del part[name]
                part["valueString"] = WITHHELD
                self.counts[*place, "identifying"] += 1

    def _is_unit(self, text: str) -> bool:
        known = self._units.get(text)
        if known is None:
            if len(self._units) > _MOST:
                self._units.clear()
            known = self._units[text] = (
                len(text) <= self._longest_unit
                and _UNIT.fullmatch(text) is not None
                and all(word in self._unit_words for word in _LETTERS.findall(text.replace("µ", "u").replace("μ", "u")))
                and all(len(run) <= 3 for run in re.findall(r"[0-9]+", text))
            )
        return known


def _same(value: Any) -> Any:
    return value


def _wrong(value: Any) -> Any:
    """A stand-in of the same kind of JSON, which holds nothing of the value."""
    if type(value) is str:
        return WITHHELD
    if type(value) is bool:
        return True
    if isinstance(value, int | float):
        return 1  # not 0, which passes for a day of 1970
    return [] if type(value) is list else {}


def _stand_in(value: Any) -> Any:
    return None if value is None else _wrong(value)


def _any_reason(name: str, is_part: bool) -> str:
    left_out = rules()[ANY].left_out
    return left_out["part_id"] if is_part and name == "id" else left_out.get(name, left_out["extension"])


def _absent(value: Any) -> Any:
    """Of what stands beside a primitive only why it is absent."""
    url = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
    known = document()["extensions"][url]["codes"].split()
    extensions = value.get("extension") if type(value) is dict else None
    for one in extensions if type(extensions) is list else ():
        if type(one) is dict and one.get("url") == url and one.get("valueCode") in known:
            return {"extension": [{"url": url, "valueCode": one["valueCode"]}]}
    return None


@cache
def _countries() -> frozenset[str]:
    return frozenset(row["country"] for row in table("codes", "fhir", "countries.csv")) | {
        "IT",
        "ITA",
        "Italia",
        "Italy",
    }


def _is_country(text: str) -> bool:
    return text in _countries() or re.fullmatch(r"[A-Z]{2,3}", text) is not None


def _plain_url(url: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9:/._-]{1,120}", url) is not None
