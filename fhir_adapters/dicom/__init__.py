"""DICOM as a source: headers of image files become FHIR ImagingStudy resources; no pixel and no text of a file passes."""
