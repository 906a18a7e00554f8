"""Codes of a run, resolved once per distinct list of codings, never per row."""

import duckdb

from fhir_adapters.knowledge import table
from omop_etl.config import Site
from omop_etl.mapping.recipes import Recipe
from omop_etl.mapping.sql import statements
from omop_etl.vocabulary import Vocabulary, attach

# stage columns of a single code: (system, code)
_SINGLE = (("unit_system", "unit_code"), ("modality_system", "modality"))


def coded_elements() -> tuple[dict[str, str], ...]:
    """Which columns of which rows as read hold lists of codings, and how one is chosen (`coded_elements.csv`)."""
    return table("codes", "fhir", "coded_elements.csv")


def resolve(
    connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary, site: Site, columns: dict[str, list[str]]
) -> None:
    """Create `choice` and `unit` for every code in the stage tables. `columns` is stage table → its columns."""
    lists, singles = [], []
    for row in coded_elements():
        if row["stage"] in columns:
            lists.append(
                f"SELECT '{row['profile']}' AS profile, {row['list']}_key AS list_key, "
                f"any_value({row['list']}_codings) AS codings FROM stage_{row['stage']} "
                f"WHERE {row['list']}_key IS NOT NULL GROUP BY 2"
            )
    for stage, names in columns.items():
        for system, code in _SINGLE:
            if system in names:
                singles.append(
                    f"SELECT DISTINCT {system} AS system, {code} AS code FROM stage_{stage} WHERE {code} IS NOT NULL"
                )
    nothing = "SELECT NULL::VARCHAR AS profile, NULL::UBIGINT AS list_key, NULL::STRUCT(system VARCHAR, code VARCHAR, "
    nothing += 'display VARCHAR, "userSelected" VARCHAR)[] AS codings WHERE false'
    single = "SELECT NULL::VARCHAR AS system, NULL::VARCHAR AS code WHERE false"
    connection.execute(
        "CREATE TABLE code_item AS SELECT profile, list_key, position, coalesce(c.system, '') AS system, c.code AS code, "
        "c.display AS display, coalesce(c.\"userSelected\" = 'true', false) AS user_selected FROM ("
        "SELECT profile, list_key, unnest(codings) AS c, generate_subscripts(codings, 1) AS position FROM ("
        f"SELECT profile, list_key, any_value(codings) AS codings FROM ({' UNION ALL '.join([nothing, *lists])}) "
        "GROUP BY ALL)) WHERE c.code IS NOT NULL"
    )
    connection.execute(
        f"CREATE TABLE unit_used AS SELECT DISTINCT coalesce(system, '') AS system, code FROM ({' UNION ALL '.join([single, *singles])})"
    )
    connection.execute(
        "CREATE TABLE code_used AS SELECT DISTINCT system, code FROM code_item UNION SELECT system, code FROM unit_used"
    )
    attach(connection, vocabulary, site=site, codes_used="code_used")
    for statement in statements("choices.sql"):
        connection.execute(statement)


def offer(connection: duckdb.DuckDBPyConnection, recipe: Recipe) -> None:
    """Create the views `chosen_<element>` that the SQL of this resource type names."""
    stages = {recipe.stage, *(name for name, _ in recipe.below())}
    for row in coded_elements():
        if row["stage"] in stages:
            lowest = " AND lowest = 1" if row["several"] == "lowest" else ""
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW chosen_{row['element']} AS "
                f"SELECT * FROM choice WHERE profile = '{row['profile']}'{lowest}"
            )
