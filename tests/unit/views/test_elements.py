"""The facts of FHIR R4 that the compiler stands on."""

import pytest

from fhir_adapters.views import elements


@pytest.mark.parametrize(
    ("parent", "name", "type_", "many"),
    [
        ("Patient", "name", "HumanName", True),
        ("Patient", "birthDate", "date", False),
        ("Patient", "contact", "Patient.contact", True),
        ("Patient.contact", "telecom", "ContactPoint", True),
        ("QuestionnaireResponse.item.answer", "item", "QuestionnaireResponse.item", True),
        ("Observation.component", "referenceRange", "Observation.referenceRange", True),
        ("Dosage.doseAndRate", "doseQuantity", "Quantity", False),
        ("Bundle.entry", "resource", "Resource", False),
        ("Identifier", "assigner", "Reference", False),
        ("Attachment", "data", "base64Binary", False),
        ("Extension", "valueUuid", "uuid", False),
    ],
)
def test_elements(parent: str, name: str, type_: str, many: bool) -> None:
    one = elements.element(parent, name)
    assert one is not None and (one.type, one.many) == (type_, many)


def test_choices_in_fhirs_order() -> None:
    assert [one.name for one in elements.choices("Patient", "deceased")] == ["deceasedBoolean", "deceasedDateTime"]


def test_every_type_is_a_primitive_or_has_elements() -> None:
    everything, _ = elements._facts()
    types = {one.type for siblings in everything.values() for one in siblings.values()}
    assert [one for one in sorted(types) if not elements.known_type(one)] == []


def test_kinds_of_types() -> None:
    assert elements.is_resource("Patient") and elements.is_resource("Bundle")
    assert not any(
        elements.is_resource(name) for name in ("Resource", "DomainResource", "Quantity", "Patient.contact", "x")
    )
    assert elements.is_a("Age", "Quantity") and elements.is_a("code", "string") and elements.is_a("Patient", "Resource")
    assert not elements.is_a("string", "code")
