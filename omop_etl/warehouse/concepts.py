"""The vocabulary tables of a warehouse: the starter slice whole, or of a full vocabulary what the data use."""

import duckdb

from omop_etl.cdm import tables
from omop_etl.vocabulary import Vocabulary

# of a full vocabulary, the rows of these tables that speak of a chosen concept
_OF_CHOSEN = {
    "concept": "concept_id IN (FROM chosen)",
    "concept_relationship": "concept_id_1 IN (FROM chosen) AND concept_id_2 IN (FROM chosen)",
    "concept_ancestor": "ancestor_concept_id IN (FROM chosen) AND descendant_concept_id IN (FROM chosen)",
    "concept_synonym": "concept_id IN (FROM chosen)",
    "drug_strength": "drug_concept_id IN (FROM chosen)",
}


def load_vocabulary(connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary, *, only_used: bool) -> None:
    """Fill the vocabulary tables. With `only_used`: the concepts that stand in any column of the loaded data, their ancestors,
    and what the vocabulary says between these; the small tables (vocabulary, domain, …) whole."""
    if only_used:
        connection.execute(f"CREATE TEMP TABLE chosen AS {_used(connection)}")
        if vocabulary.has("concept_ancestor"):
            connection.execute(
                "INSERT INTO chosen SELECT DISTINCT ancestor_concept_id "
                f"FROM {vocabulary.relation('concept_ancestor')} WHERE descendant_concept_id IN (FROM chosen) "
                "AND ancestor_concept_id NOT IN (FROM chosen)"
            )
    for table in tables().values():
        if table.schema == "vocab" and vocabulary.has(table.name):
            wanted = _OF_CHOSEN.get(table.name, "true") if only_used else "true"
            connection.execute(
                f'INSERT INTO main."{table.name}" SELECT {", ".join(table.names)} '
                f"FROM {vocabulary.relation(table.name)} WHERE {wanted} ORDER BY ALL"
            )


def _used(connection: duckdb.DuckDBPyConnection) -> str:
    """A SELECT of every concept id in the loaded tables."""
    parts = []
    for table in tables().values():
        if table.schema == "vocab" or not connection.execute(f'SELECT 1 FROM main."{table.name}" LIMIT 1').fetchall():
            continue
        parts += [
            f'SELECT DISTINCT "{column.name}" AS concept_id FROM main."{table.name}" WHERE "{column.name}" IS NOT NULL'
            for column in table.columns
            if column.references == ("concept", "concept_id")
        ]
    return " UNION ".join(parts) or "SELECT 0 AS concept_id"
