"""HL7 v2 messages of a hospital (ADT, ORU, ORM, OMP, RDE, RAS …) → FHIR R4 under pseudonyms: the `hl7v2` source."""
