"""The OMOP vocabularies: loaded from an Athena download, asked for the concepts of source codes.

load(athena, out)             an Athena download becomes Parquet with its `vocabulary.lock`
open_vocabulary(path)         that folder, a raw Athena folder, or (None) the starter slice of `mappings/vocabulary`
attach(connection, vocabulary, site=site, codes_used="…")     code → concept for all codes of a run, in SQL
explain_code(vocabulary, system, code)                        the same for one code, in plain Python, step by step
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omop_etl.vocabulary.athena import Vocabulary, load, open_vocabulary

if TYPE_CHECKING:
    import duckdb

    from omop_etl.config import Site
    from omop_etl.vocabulary.explain import Answer

__all__ = ["Vocabulary", "attach", "explain_code", "load", "open_vocabulary"]


def attach(
    connection: "duckdb.DuckDBPyConnection", vocabulary: Vocabulary, *, site: "Site | None" = None, codes_used: str
) -> None:
    """Answer every code of a run. See `omop_etl.vocabulary.resolve.attach`."""
    from omop_etl.vocabulary.resolve import attach as answer

    answer(connection, vocabulary, site=site, codes_used=codes_used)


def explain_code(vocabulary: Vocabulary, system: str, code: str, *, site: "Site | None" = None) -> "Sequence[Answer]":
    """Answer one code and say how. See `omop_etl.vocabulary.explain.explain_code`."""
    from omop_etl.vocabulary.explain import explain_code as answer

    return answer(vocabulary, system, code, site=site)
