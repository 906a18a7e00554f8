"""CDM facts as SQL statements.

Every name is quoted, since `offset` of note_nlp is a reserved word; all are lower case, so quoted and unquoted spelling
mean the same.
"""

from collections.abc import Sequence

from omop_etl.cdm import Column, Dialect, Table, duckdb_type

# looked up by every query of OHDSI's tools beside the person: the event's own concept, and the visit
_INDEXED_REFERENCES = {"person", "visit_occurrence"}


def quoted(name: str) -> str:
    """A name of ours as an SQL identifier."""
    return f'"{name}"'


def _target(table: str, schema: str) -> str:
    return f"{quoted(schema)}.{quoted(table)}" if schema else quoted(table)


def _type(column: Column, dialect: Dialect) -> str:
    if dialect == "duckdb":
        return duckdb_type(column.type)
    return "DOUBLE PRECISION" if column.type == "double" else column.type.upper()


def create(table: Table, dialect: Dialect, *, keys: bool, schema: str) -> str:
    """CREATE TABLE, with NOT NULL and the primary key if `keys`."""
    lines = []
    for column in table.columns:
        rule = " NOT NULL" if keys and column.required else ""
        lines.append(f"    {quoted(column.name)} {_type(column, dialect)}{rule}")
    if keys and table.primary_key:
        lines.append(f"    PRIMARY KEY ({quoted(table.primary_key)})")
    return f"CREATE TABLE {_target(table.name, schema)} (\n" + ",\n".join(lines) + "\n)"


def primary_keys(tables: Sequence[Table], *, schema: str) -> list[str]:
    """NOT NULL and primary keys for tables that were created bare (PostgreSQL)."""
    statements = []
    for table in tables:
        rules = [f"ALTER COLUMN {quoted(column.name)} SET NOT NULL" for column in table.columns if column.required]
        if table.primary_key:
            rules.append(f"ADD PRIMARY KEY ({quoted(table.primary_key)})")
        if rules:
            statements.append(f"ALTER TABLE {_target(table.name, schema)} " + ", ".join(rules))
    return statements


def foreign_keys(tables: Sequence[Table], *, schema: str) -> list[str]:
    """One ALTER TABLE per table with all its references to tables that are among `tables` (PostgreSQL)."""
    present = {table.name for table in tables}
    statements = []
    for table in tables:
        rules = [
            f"ADD CONSTRAINT {quoted(f'fk_{table.name}_{column.name}')} FOREIGN KEY ({quoted(column.name)}) "
            f"REFERENCES {_target(column.references[0], schema)} ({quoted(column.references[1])})"
            for column in table.columns
            if column.references and column.references[0] in present
        ]
        if rules:
            statements.append(f"ALTER TABLE {_target(table.name, schema)} " + ", ".join(rules))
    return statements


def indexes(tables: Sequence[Table], *, schema: str) -> list[str]:
    """Indexes on the person, the visit and the event's own concept of each table (PostgreSQL)."""
    statements = []
    for table in tables:
        concepts = [c.name for c in table.columns if c.references == ("concept", "concept_id")]
        wanted = [c.name for c in table.columns if c.references and c.references[0] in _INDEXED_REFERENCES]
        if "person_id" in table and concepts:
            wanted.append(concepts[0])
        for column in dict.fromkeys(wanted):
            if column != table.primary_key:
                name = quoted(f"idx_{table.name}_{column}")
                statements.append(f"CREATE INDEX {name} ON {_target(table.name, schema)} ({quoted(column)})")
    return statements
