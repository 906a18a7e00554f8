"""Writes `r4_elements.csv`: path, type, cardinality and choice of every element, from the FHIR models of fhir.resources (R4B).

The compiler reads the table, not the models: importing all models takes seconds, the table a few milliseconds.
R4B (4.3.0) is the R4 release that fhir.resources carries; it equals R4 (4.0.1) for the resources that hospitals send.

    path     `Patient.contact`; a type's own row has no dot
    type     type of the element; a nested element's type is its own path, so `QuestionnaireResponse.item.item` has the
             type `QuestionnaireResponse.item`; on a type's own row, what it specialises (Element, DomainResource …)
    many     1 when the element repeats
    choice   `value` for `valueQuantity`: the name that FHIRPath uses
"""

import csv
import importlib
import io
import pkgutil
import typing
from pathlib import Path
from typing import Any

FACTS = Path("fhir_adapters", "views", "r4_elements.csv")
_FHIR_NAMES = {"encodedBytes": "base64Binary", "uuidVersion": "uuid"}  # pydantic's own names for two FHIR primitives


def _models() -> dict[str, Any]:
    """Every model class of the release by its name, the plain types and resources before their nested elements."""
    package = importlib.import_module("fhir.resources.R4B")
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("_") or module.name in ("tests", "fhirtypes", "fhirtypesvalidators"):
            continue
        for name, value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).items():
            if isinstance(value, type) and value.__module__.endswith("." + module.name) and _is_model(value):
                found[name] = value
    return found


def _is_model(value: Any) -> bool:
    return hasattr(value, "elements_sequence") and hasattr(value, "get_resource_type")


def _type_of(annotation: Any) -> tuple[str, bool]:
    """(name of the model or primitive, repeats) of a field's annotation."""
    many = False
    while True:
        if typing.get_origin(annotation) is list:
            many, annotation = True, typing.get_args(annotation)[0]
        elif hasattr(annotation, "__metadata__"):
            name = type(annotation.__metadata__[0]).__name__
            name = name[0].lower() + name[1:]
            return _FHIR_NAMES.get(name, name), many
        elif typing.get_args(annotation):
            annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
        elif annotation is bool:
            return "boolean", many
        else:
            return annotation.__name__.removesuffix("Type"), many


def _rows() -> list[tuple[str, str, str, str]]:
    models = _models()
    plain = {name for name, model in models.items() if model.__module__.rsplit(".", 1)[1] == name.lower()}
    paths: dict[str, str] = {name: name for name in plain}
    rows: list[tuple[str, str, str, str]] = []

    def elements(name: str) -> None:
        model, path = models[name], paths[name]
        sequence = model.elements_sequence()
        fields = {field.alias or key: field for key, field in model.model_fields.items()}
        for element in sequence:
            field = fields[element]
            target, many = _type_of(field.annotation)
            nested = target in models and target not in paths
            if nested:
                paths[target] = f"{path}.{element}"
            choice = (field.json_schema_extra or {}).get("one_of_many") or ""
            rows.append((f"{path}.{element}", paths.get(target, target), "1" if many else "", choice))
            if nested:
                elements(target)

    for name in sorted(plain):
        base = models[name].__mro__[1].__name__
        rows.append((name, base if base in plain else "", "", ""))
        elements(name)
    return rows


def generated() -> dict[Path, str]:
    """The generated file of this room: its path from the repository's root, and the text that it should hold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "type", "many", "choice"))
    writer.writerows(_rows())
    return {FACTS: text.getvalue()}
