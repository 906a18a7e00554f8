"""CDM facts as SQLAlchemy metadata, for reflection, for the gate and for SQL users."""

from collections.abc import Iterable

import sqlalchemy as sa

from omop_etl.cdm import Column, Table


def _type(column: Column) -> sa.types.TypeEngine:
    if column.length:
        return sa.String(column.length)
    types: dict[str, sa.types.TypeEngine] = {
        "integer": sa.Integer(),
        "bigint": sa.BigInteger(),
        "double": sa.Double(),
        "date": sa.Date(),
        "timestamp": sa.DateTime(),
        "text": sa.Text(),
    }
    return types[column.type]


def build(tables: Iterable[Table], schema: str | None) -> sa.MetaData:
    """Metadata of `tables`, with keys. References between concept, domain and vocabulary are circular: `use_alter`."""
    metadata = sa.MetaData(schema=schema)
    prefix = f"{schema}." if schema else ""
    for table in tables:
        columns = []
        for column in table.columns:
            references = []
            if column.references:
                name = f"fk_{table.name}_{column.name}"
                target = prefix + ".".join(column.references)
                references.append(sa.ForeignKey(target, name=name, use_alter=table.schema == "vocab"))
            columns.append(
                sa.Column(
                    column.name,
                    _type(column),
                    *references,
                    primary_key=column.primary_key,
                    nullable=not column.required,
                    autoincrement=False,
                )
            )
        sa.Table(table.name, metadata, *columns)
    return metadata
