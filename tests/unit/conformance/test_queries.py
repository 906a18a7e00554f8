"""What a column is computed from, told from the SQL text alone: one small SELECT for each thing that our SQL does."""

import pytest

from omop_etl.conformance.clauses import Clause, choices, clauses
from omop_etl.conformance.queries import Origin, Trace, lookup, parsed, table, trace

PEOPLE = table("people", "id", "name", "born", "parts")
RELATIONS = {"people": PEOPLE, "codes": lookup("codes"), "anything": table("anything")}


def from_(sql: str, column: str = "x") -> set[str]:
    """The origins of a column, as `table.column.field`."""
    result = trace(sql, RELATIONS)
    assert not result.unknown, result.unknown
    return {".".join((one.relation, one.column, *one.fields)) for one in result.columns[column].origins}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT name AS x FROM people", {"people.name"}),
        ("SELECT p.name AS x FROM people p", {"people.name"}),
        ("SELECT x FROM (SELECT coalesce(name, born) AS x FROM people)", {"people.name", "people.born"}),
        ("SELECT * FROM (SELECT *, name AS x FROM people)", {"people.name"}),
        ("SELECT * REPLACE (born AS x) FROM (SELECT *, name AS x FROM people)", {"people.born"}),
        ("SELECT CASE WHEN born = '1' THEN name END AS x FROM people", {"people.name", "people.born"}),
        ("SELECT name::DATE AS x FROM people", {"people.name"}),
        ("SELECT max(name) FILTER (born IS NOT NULL) AS x FROM people", {"people.name", "people.born"}),
        ("SELECT row_number() OVER (PARTITION BY id ORDER BY born) AS x FROM people", {"people.id", "people.born"}),
        ("SELECT p.code.coding AS x FROM (SELECT unnest(parts) AS p FROM people)", {"people.parts.code.coding"}),
        ("SELECT parts[1].code AS x FROM people", {"people.parts.code"}),
        ("SELECT [s.code] AS x FROM (SELECT unnest(parts) AS s FROM people)", {"people.parts.code"}),
        ("SELECT list_transform(parts, lambda p: p.code) AS x FROM people", {"people.parts", "people.parts.code"}),
        ("SELECT born AS other, upper(other) AS x FROM people", {"people.born"}),
        ("SELECT name AS x FROM people UNION ALL SELECT born FROM people", {"people.name", "people.born"}),
        (
            "SELECT 'a' AS y, 1 AS z, name AS x FROM people UNION ALL SELECT 'b', 2, born FROM people",
            {"people.name", "people.born"},
        ),
        ("WITH a AS (SELECT name FROM people) SELECT name AS x FROM a", {"people.name"}),
        ("SELECT c.concept AS x FROM people p LEFT JOIN codes c ON c.key = p.name", {"people.name"}),
        ("SELECT id IN (SELECT born FROM people) AS x FROM people", {"people.id", "people.born"}),
        ("SELECT e.new AS x FROM anything e", {"anything.new"}),
        ("SELECT 1 AS x", set()),
    ],
)
def test_origins(sql: str, expected: set[str]) -> None:
    assert from_(sql) == expected


def test_where_qualify_and_inner_joins_decide_the_rows() -> None:
    sql = "SELECT p.id AS x FROM people p JOIN codes c ON c.key = p.name WHERE p.born > '1' QUALIFY rank() OVER (ORDER BY p.parts) = 1"
    assert {one.column for one in trace(sql, RELATIONS).decides.origins} == {"name", "born", "parts"}
    left = trace("SELECT p.id AS x FROM people p LEFT JOIN codes c ON c.key = p.name", RELATIONS)
    assert not left.decides.origins


def test_what_is_looked_up_is_told() -> None:
    result = trace("SELECT c.concept AS x FROM people p LEFT JOIN codes c ON c.key = p.name", RELATIONS)
    assert result.columns["x"].asked == {("codes", "concept")}


def test_a_text_that_is_cut_and_one_of_several() -> None:
    result = trace(
        "SELECT left(name, 20) AS a, left(left(name, 9), 20) AS b, parts[1] AS c, left(born, 4) || name AS d FROM people",
        RELATIONS,
    )
    assert [result.columns[name].cut for name in "abcd"] == [20, 20, None, 4]
    assert result.columns["c"].firsts == {Origin("people", "parts")} and not result.columns["a"].firsts


def test_each_answer_of_a_reason_with_what_leads_to_it() -> None:
    sql = "SELECT CASE WHEN name = 'a' THEN 'X-ONE' WHEN born IS NULL THEN 'X-TWO' END AS reason FROM people"
    told = [
        (sorted(then.words), sorted(one.column for one in when.origins)) for when, then in trace(sql, RELATIONS).reasons
    ]
    assert told == [(["X-ONE"], ["name"]), (["X-TWO"], ["born"])]


@pytest.mark.parametrize(
    ("sql", "unknown"),
    [
        ("SELECT x FROM nowhere", {"nowhere"}),
        ("SELECT p.size AS x FROM people p", {"p.size"}),
        ("SELECT size AS x FROM people", {"size"}),
        ("SELECT x FROM range(3) t(x)", {"TABLE_FUNCTION"}),
    ],
)
def test_what_nobody_has_told_of_is_named(sql: str, unknown: set[str]) -> None:
    assert trace(sql, RELATIONS).unknown == unknown


def test_on_the_right_of_a_join_tables_can_be_asked_by_key() -> None:
    sql = "SELECT o.id AS x FROM people p JOIN people o ON o.name = p.born"
    assert trace(sql, RELATIONS).columns["x"].origins == {Origin("people", "id")}
    assert Origin("people", "born") in trace(sql, RELATIONS, joined_are_lookups=True).columns["x"].origins
    assert Origin("people", "id") not in trace(sql, RELATIONS, joined_are_lookups=True).columns["x"].origins


def test_what_is_no_select_is_an_error() -> None:
    with pytest.raises(ValueError, match="no SELECT"):
        parsed("SELECT FROM WHERE it's")


def test_a_field_of_nothing_known_stays_a_sentence() -> None:
    said = Trace(frozenset([Origin("a sentence")]))
    assert said.field("x") == said


SQL = """-- One row per thing.
-- And more.
SELECT
    r.id AS thing_id,
    -- the day, not the moment
    -- (CDM)
    r.day::DATE AS thing_date,
    'a, b -- no comment' AS word,
    coalesce(r.a, 0),
    CASE WHEN r.b IN (1, 2) THEN r.c END AS "quoted", -- behind the line
    r.last
-- of the rows, not of the column
FROM (SELECT 1 AS inside) r
"""


def test_clauses_of_a_select() -> None:
    title, found = clauses(SQL)
    assert title == "One row per thing. And more."
    assert found == [
        Clause("thing_id", "r.id", ""),
        Clause("thing_date", "r.day::DATE", "the day, not the moment (CDM)"),
        Clause("word", "'a, b -- no comment'", ""),
        Clause("", "coalesce(r.a, 0)", ""),
        Clause("quoted", "CASE WHEN r.b IN (1, 2) THEN r.c END", "behind the line"),
        Clause("last", "r.last", ""),
    ]


@pytest.mark.parametrize("end", ["", "\n-- why\nWHERE true", " -- beside\nGROUP BY ALL", "\nQUALIFY 1 = 1"])
def test_the_last_clause_ends_where_the_columns_end(end: str) -> None:
    comment = "beside" if "beside" in end else ""
    assert clauses(f"SELECT 1 AS a, 2 AS b{end}")[1] == [Clause("a", "1", ""), Clause("b", "2", comment)]


def test_choices_are_followed_to_where_they_were_made() -> None:
    read = """
SELECT
    starts_at(start_text) AS start_datetime,
    is_partial(start_text) AS start_imputed
FROM (
    SELECT
        *,
        -- onset first
        coalesce(onset, recorded) AS start_text
    FROM flat
)
"""
    event = """
SELECT
    r.start_datetime,
    -- said or not
    coalesce(r.kind, kind_of(r.start_imputed)) AS kind
FROM included r
"""
    assert choices(read, "start_datetime") == ["onset first"]
    assert choices(event, "start_datetime", read) == ["onset first"]
    # that a date was imputed is another matter than the date
    assert choices(event, "kind", read) == ["said or not"]
    assert choices(event, "nothing", read) == []
