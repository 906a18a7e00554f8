"""What is wrong with a ViewDefinition, said with the place where it stands: `select[1].column[0].path`.

E-VIEW-01  the definition does not have the form of a ViewDefinition
E-VIEW-02  a FHIRPath expression does not parse, or names what FHIR or this compiler does not know
E-VIEW-03  a column that is not a collection has several values in a resource
E-VIEW-04  the file of the definition cannot be read as JSON
E-VIEW-05  the resources do not have the structure of FHIR
E-VIEW-06  the output file has no known ending

A message shows names of the definition, never a value of a resource: DuckDB's own message is never passed on.
"""

from typing import NoReturn

from fhir_adapters.errors import PalmaresError

DEFINITION, PATH, MANY, UNREADABLE, STRUCTURE, OUTPUT = (f"E-VIEW-0{n}" for n in range(1, 7))


class PathError(Exception):
    """What is wrong with one FHIRPath expression; the caller knows where the expression stands."""


def wrong(place: str, detail: str, code: str = DEFINITION) -> NoReturn:
    """Raise the numbered error about the element of the definition at `place`."""
    raise PalmaresError(code, place or "ViewDefinition", detail=detail)
