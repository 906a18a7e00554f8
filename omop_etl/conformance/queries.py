"""What each column of a SELECT is computed from, and what decides which rows it gives, from DuckDB's own syntax tree.

Nothing is run and no table needs to exist: DuckDB parses the text (`json_serialize_sql`), and the tree is walked. So a
change of the SQL changes what is said about it.

    trace(sql, relations) -> Relation     relations: name → what is known of the tables that the SQL names
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import duckdb

Node = dict[str, Any]
_REASONS = ("reason", "exclusion")


@dataclass(frozen=True, order=True)
class Origin:
    """A column of a table, and the path to a field within it. Without a column, `relation` is a sentence that says what it is."""

    relation: str
    column: str = ""
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trace:
    """What a value is computed from.

    `origins`: columns. `words`: texts that the SQL itself holds. `asked`: columns of tables that were only looked up in.
    `functions`: names called. `cut`: characters to which a text is cut. `firsts`: origins of which one item is taken.
    """

    origins: frozenset[Origin] = frozenset()
    words: frozenset[str] = frozenset()
    asked: frozenset[tuple[str, str]] = frozenset()
    functions: frozenset[str] = frozenset()
    cut: int | None = None
    firsts: frozenset[Origin] = frozenset()

    def field(self, name: str) -> "Trace":
        """A field of the value."""
        below = {one: replace(one, fields=(*one.fields, name)) for one in self.origins if one.column}
        return replace(
            self,
            origins=frozenset(below.get(one, one) for one in self.origins),
            firsts=frozenset(below.get(one, one) for one in self.firsts),
        )


def merged(traces: Iterable[Trace]) -> Trace:
    """What several values together are computed from."""
    every = tuple(traces)
    cuts = [one.cut for one in every if one.cut is not None]
    return Trace(
        frozenset().union(*(one.origins for one in every)),
        frozenset().union(*(one.words for one in every)),
        frozenset().union(*(one.asked for one in every)),
        frozenset().union(*(one.functions for one in every)),
        min(cuts, default=None),
        frozenset().union(*(one.firsts for one in every)),
    )


@dataclass(frozen=True)
class Relation:
    """A table, or the result of a SELECT.

    `decides`: what decides which rows it has. A `lookup` is asked by key: its columns come from what it is joined on. An
    `open` one has whatever column is named. `unknown` names what the SQL mentions and nobody has told of. `reasons`: for a
    CASE named `reason` or `exclusion`, what leads to each answer, and the answer.
    """

    name: str
    columns: Mapping[str, Trace] = field(default_factory=dict)
    lookup: bool = False
    open: bool = False
    key: Trace = Trace()
    decides: Trace = Trace()
    unknown: frozenset[str] = frozenset()
    reasons: tuple[tuple[Trace, Trace], ...] = ()

    def column(self, name: str) -> Trace | None:
        own = self.columns.get(name)
        if self.open and not self.lookup:
            return Trace(frozenset([Origin(self.name, name)]))
        if not self.lookup:
            return own
        asked = Trace(asked=frozenset([(self.name, name)]))
        return merged([own or Trace(), replace(self.key, asked=frozenset(), words=frozenset()), asked])


def table(name: str, *columns: str) -> Relation:
    """A table whose columns come from nothing but themselves; without columns, one that has whatever column is named."""
    return Relation(name, {one: Trace(frozenset([Origin(name, one)])) for one in columns}, open=not columns)


def lookup(name: str, columns: Mapping[str, Trace] | None = None) -> Relation:
    """A table that is asked by key."""
    return Relation(name, columns or {}, lookup=True)


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@cache
def parsed(sql: str) -> Node:
    """The syntax tree of a SELECT. Raises ValueError when DuckDB cannot parse it."""
    # a literal, not a parameter: for its first parameter DuckDB imports pandas, which takes seconds
    quoted = sql.replace("'", "''")
    answer = f"SELECT json_serialize_sql('{quoted}', skip_default := true, skip_null := true)"
    row = _connection().execute(answer).fetchone()
    tree: Node = json.loads(row[0]) if row else {"error": True}
    if tree["error"]:
        raise ValueError(f"no SELECT that DuckDB can parse: {tree.get('error_message')}")
    node: Node = tree["statements"][0]["node"]
    return node


def trace(sql: str, relations: Mapping[str, Relation], *, joined_are_lookups: bool = False) -> Relation:
    """The columns of a SELECT with what each is computed from.

    With `joined_are_lookups`, every table on the right of a JOIN counts as asked by key.
    """
    return _Query(relations, joined_are_lookups).result(parsed(sql))


@dataclass
class _Query:
    """One SELECT. `outer` is the query around it; `bound` the parameters of lambdas."""

    tables: Mapping[str, Relation]
    joined_are_lookups: bool
    outer: "_Query | None" = None
    here: dict[str, Relation] = field(default_factory=dict)
    aliases: dict[str, Node] = field(default_factory=dict)
    bound: dict[str, Trace] = field(default_factory=dict)
    decides: list[Trace] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    # --- the query ---

    def result(self, node: Node) -> Relation:
        for entry in node.get("cte_map", {}).get("map", ()):
            self.tables = {**self.tables, entry["key"]: self._inner(entry["value"]["query"]["node"])}
        if node["type"] == "SET_OPERATION_NODE":
            return self._union([self._inner(one) for one in (node["left"], node["right"])])
        if node["type"] != "SELECT_NODE":
            self.unknown.add(node["type"])
            return self._closed({}, ())
        self._source(node.get("from_table", {"type": "EMPTY"}))
        self.aliases = {one["alias"]: one for one in node["select_list"] if one.get("alias")}
        for part in ("where_clause", "qualify", "having"):
            self.decides.append(self.value(node.get(part)))
        columns: dict[str, Trace] = {}
        reasons: list[tuple[Trace, Trace]] = []
        for one in node["select_list"]:
            if one["class"] == "STAR":
                columns |= dict(self._star(one))
                continue
            # columns without a name keep their place, which a UNION goes by
            name = one.get("alias") or one.get("column_names", [f"?{len(columns)}"])[-1]
            columns[name] = self.value(one)
            if name in _REASONS:
                reasons += self._branches(one)
        return self._closed(columns, tuple(reasons))

    def _branches(self, case: Node) -> Iterator[tuple[Trace, Trace]]:
        """What leads to each answer of a CASE, and the answer."""
        checks = case.get("case_checks", ())
        for check in checks:
            yield self.value(check["when_expr"]), self.value(check["then_expr"])
        otherwise = self.value(case.get("else_expr"))
        if otherwise != Trace():
            yield merged(self.value(check["when_expr"]) for check in checks), otherwise

    def _closed(self, columns: dict[str, Trace], reasons: tuple[tuple[Trace, Trace], ...]) -> Relation:
        unknown = self.unknown.union(*(one.unknown for one in self.here.values()))
        decides = merged([*self.decides, *(one.decides for one in self.here.values() if not one.lookup)])
        return Relation("", columns, decides=decides, unknown=frozenset(unknown), reasons=reasons)

    def _inner(self, node: Node) -> Relation:
        return _Query(self.tables, self.joined_are_lookups, outer=self).result(node)

    def _union(self, parts: list[Relation]) -> Relation:
        names = list(parts[0].columns)
        rows = zip(*(one.columns.values() for one in parts), strict=False)
        return Relation(
            "",
            {name: merged(row) for name, row in zip(names, rows, strict=False)},
            decides=merged(one.decides for one in parts),
            unknown=frozenset().union(*(one.unknown for one in parts)),
        )

    # --- FROM ---

    def _source(self, node: Node, joined: bool = False) -> list[str]:
        """Take in what stands behind FROM; the names of the tables."""
        kind = node["type"]
        if kind == "EMPTY":
            return []
        if kind == "JOIN":
            left, right = self._source(node["left"], joined), self._source(node["right"], joined=True)
            on = self.value(node.get("condition"))
            for name in right:
                self.here[name] = replace(self.here[name], key=on)
            if node.get("join_type") != "LEFT":
                self.decides.append(on)  # an inner join drops the rows that find nothing
            return [*left, *right]
        if kind == "SUBQUERY":
            name, relation = str(node.get("alias", f"#{len(self.here)}")), self._inner(node["subquery"]["node"])
        elif kind == "BASE_TABLE":
            name, relation = str(node.get("alias", node["table_name"])), self._known(node["table_name"])
        else:
            self.unknown.add(kind)
            name, relation = str(node.get("alias", f"#{len(self.here)}")), lookup(kind)
        if joined and self.joined_are_lookups and not relation.lookup:
            relation = lookup(relation.name or name)
        self.here[name] = relation
        return [name]

    def _known(self, name: str) -> Relation:
        relation = self.tables.get(name)
        if relation is None:
            self.unknown.add(name)
            return lookup(name)
        return replace(relation, name=name)

    def _star(self, node: Node) -> Iterator[tuple[str, Trace]]:
        of, without = node.get("relation_name"), set(map(_name, node.get("exclude_list", ())))
        instead = {_name(one["key"]): self.value(one["value"]) for one in node.get("replace_list", ())}
        for name, relation in self.here.items():
            if of in (None, "", name):
                for column in relation.columns:
                    if column not in without:
                        yield column, instead.get(column) or relation.column(column) or Trace()

    # --- expressions ---

    def value(self, node: Any) -> Trace:
        """What an expression, or several, is computed from."""
        if isinstance(node, list):
            return merged(map(self.value, node))
        if not isinstance(node, dict):
            return Trace()
        match node.get("class"), node.get("type"):
            case "COLUMN_REF", _:
                return self._column(node["column_names"])
            case "CONSTANT", _:
                text = node["value"].get("value")
                return Trace(words=frozenset([text])) if isinstance(text, str) else Trace()
            case "SUBQUERY", _:
                inner = self._inner(node["subquery"]["node"])
                self.unknown |= inner.unknown
                return merged([*inner.columns.values(), inner.decides, self.value(node.get("child"))])
            case "FUNCTION", _:
                return self._function(node)
            case "OPERATOR", "STRUCT_EXTRACT":
                base, name = node["children"]
                return self.value(base).field(str(name["value"]["value"]))
            case "OPERATOR", "ARRAY_EXTRACT":
                one = self.value(node["children"])
                return replace(one, firsts=one.firsts | one.origins)
        return merged(self.value(part) for part in node.values())

    def _function(self, node: Node) -> Trace:
        arguments = node.get("children", [])
        lambdas = [one for one in arguments if one["class"] == "LAMBDA"]
        plain = merged(self.value(one) for one in arguments if one["class"] != "LAMBDA")
        found = [plain, Trace(functions=frozenset([node["function_name"]]))]
        for one in lambdas:
            names = [one["lhs"]] if one["lhs"]["class"] == "COLUMN_REF" else one["lhs"].get("children", [])
            before = dict(self.bound)
            self.bound |= {name["column_names"][-1]: plain for name in names}
            found.append(self.value(one["expr"]))
            self.bound = before
        found += [self.value(node.get(part)) for part in ("filter", "order_bys")]
        whole = merged(found)
        if node["function_name"] == "left" and len(arguments) == 2 and arguments[1]["class"] == "CONSTANT":
            whole = replace(whole, cut=int(arguments[1]["value"]["value"]))
        return whole

    def _column(self, names: list[str]) -> Trace:
        found, rest = self._find(names)
        if found is None:
            self.unknown.add(".".join(names))
            return Trace()
        for name in rest:
            found = found.field(name)
        return found

    def _find(self, names: list[str]) -> tuple[Trace | None, list[str]]:
        first, *rest = names
        if first in self.bound:
            return self.bound[first], rest
        if rest and first in self.here:
            return self.here[first].column(rest[0]), rest[1:]
        for relation in self.here.values():
            if first in relation.columns:
                return relation.column(first), rest
        if first in self.aliases:
            # a column that stands in the same SELECT
            node = self.aliases.pop(first)
            trace_ = self.value(node)
            self.aliases[first] = node
            return trace_, rest
        open_ones = [one for one in self.here.values() if one.open or (one.lookup and not one.columns)]
        if len(open_ones) == 1:
            return open_ones[0].column(first), rest
        return self.outer._find(names) if self.outer else (None, rest)


def _name(node: Any) -> str:
    """The name of a column in an EXCLUDE or REPLACE list."""
    return node if isinstance(node, str) else str(node.get("column_names", [node.get("column", "?")])[-1])
