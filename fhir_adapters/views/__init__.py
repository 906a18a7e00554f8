"""SQL on FHIR v2 (https://sql-on-fhir.org): a ViewDefinition becomes one DuckDB SELECT over NDJSON files.

    compile_view(view) -> CompiledView      .columns for read_json, .names and .types of the result, .sql(source)
    read_shards(paths, columns) -> str      the read_json call that gives the source
    evaluate(view, resources) -> list       the rows over resources in memory
    explained(error, subject)               DuckDB's error over a view as a numbered one, without values
    run_view(definition, fhir, out) -> int  the rows over files, as .csv, .parquet or .ndjson

A definition's way: `parser` (FHIRPath text → tree), `expressions` (tree → SQL value, over `elements`, `values`, `moments`),
`selects` (selects → one chain of unnests), `running`.

What is read. Each leaf (string, code, boolean, decimal, date …) is read from JSON as VARCHAR, each complex element as STRUCT or
STRUCT[], with only the children that the view uses; the SQL casts a leaf where it is used, to NULL when it does not fit. DuckDB
writes a number or a boolean in a VARCHAR as its JSON text (1 → '1', 1.0 → '1.0', true → 'true'; but 1.10 → '1.1', the reader
keeps no trailing zeros) and an object or array as JSON text ('{"x":1}'). So the strict reader stops a file only for an object
where an array belongs or the other way round, a scalar where either belongs, a line that is no object, a key that is asked for
and stands twice in an object, malformed JSON, or bytes that are no UTF-8. It takes trailing commas, NaN and Infinity; unknown
keys are passed over; a line `null` is a row of NULLs, which the filter on resourceType drops. An element that `repeat` descends
is read as JSON and taken apart by the SQL; there, what has another structure than FHIR's becomes NULL.

Beyond the specification: columns of complex types (`complex`), more of FHIRPath's functions (`functions`). Where it leaves room:
a collection column without values is an empty list; in the row of an empty forEachOrNull every column is NULL but `%rowIndex`,
which is 0; a choice such as value[x] must be resolved with ofType, unless only its existence is asked or only one of its types
has the next element (value.unit); an element that FHIR R4 does not have is an error; a value that is no literal reference, or a
contained one, has no reference key.

A key (getResourceKey, getReferenceKey) is the logical id.
"""

from fhir_adapters.views.running import evaluate, explained, read_shards, run_view
from fhir_adapters.views.selects import CompiledView, compile_view

__all__ = ["CompiledView", "compile_view", "evaluate", "explained", "read_shards", "run_view"]
