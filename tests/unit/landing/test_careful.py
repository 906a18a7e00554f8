"""The careful lane refuses exactly the lines that DuckDB's strict read refuses, and says why without a value."""

import json
import tempfile
import time
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.landing.careful import List, Suspect, explain_shard, explain_shards, shape
from fhir_adapters.landing.rules import may_double
from tests.landing_helpers import DERANDOMIZE, EXAMPLES

COLUMNS = {
    "resourceType": "VARCHAR",
    "id": "VARCHAR",
    "code": 'STRUCT(coding STRUCT("system" VARCHAR, code VARCHAR)[], "text" VARCHAR)',
    "name": 'STRUCT(given VARCHAR[], period STRUCT("start" VARCHAR))[]',
    "matrix": "VARCHAR[][]",
    "raw": "JSON",
}
KNOWN = [
    "resourceType",
    "id",
    "code",
    "name",
    "matrix",
    "raw",
    "coding",
    "system",
    "text",
    "given",
    "period",
    "start",
    "x",
]

_connection = duckdb.connect(config={"threads": 1})


def strict(path: Path) -> int | None:
    """Rows that DuckDB's strict read gives, or None when it refuses the file."""
    spec = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
    query = f"SELECT * FROM read_json(['{path}'], format='newline_delimited', columns={{{spec}}})"
    try:
        return len(_connection.execute(query).fetchall())
    except duckdb.InvalidInputException:
        return None


def explained(lines: list[bytes], **options: str) -> tuple[list[tuple], list[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path, good = Path(folder, "1-0001.ndjson"), Path(folder, "good")
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        rejects = explain_shard(path, COLUMNS, good, name="S", **options)
        return [tuple(reject) for reject in rejects], good.read_bytes().split(b"\n")[:-1]


# ------------------------------------------------------------------------------------- against DuckDB itself

_texts = st.sampled_from(
    ['""', '"a"', '"\\u0041"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\q"', '"é"', '"":', '"\\":\\""', '"\t"']
)
_numbers = st.sampled_from(
    [
        *("0", "-0", "1", "01", "1.", ".5", "-1.5e3", "1e999", "+1", "0x1", "123456789012345678901234567890"),
        *("NaN", "nan", "Infinity", "-Infinity", "inf", "-inf", "-nan"),
    ]
)
_scalars = st.one_of(_texts, _numbers, st.sampled_from(["true", "false", "null", "nil", "", "[]", "{}"]))
_blank = st.sampled_from(["", "", "", " ", "\t", "\r", "\x0c", "\x0b", "\u00a0"])
_comma = st.sampled_from(["", "", "", "", ","])
_keys = st.one_of(st.sampled_from(KNOWN), st.sampled_from(["\\u0069d", "ID", "", "\\u0022:"]))


def _list(item: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda items, tail, blank: "[" + blank + ",".join(items) + (tail if items else "") + "]",
        st.lists(item, max_size=3),
        _comma,
        _blank,
    )


def _object(item: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.builds(lambda key, one, two, value: f'"{key}"{one}:{two}{value}', _keys, _blank, _blank, item)
    return st.builds(
        lambda members, tail: "{" + ",".join(members) + (tail if members else "") + "}",
        st.lists(member, max_size=4),
        _comma,
    )


_values = st.recursive(_scalars, lambda inner: st.one_of(_list(inner), _object(inner)), max_leaves=12)

# lines that mostly fit the columns, so that the deeper rules are reached
_good_leaf = st.sampled_from(['"a"', "1.50", "true", "null", "{}", "[1]", '"\\u0062"'])
_sometimes = st.one_of(_good_leaf, _good_leaf, _scalars)
_coding = st.builds(lambda a, b: f'{{"system":{a},"code":{b}}}', _sometimes, _sometimes)
_code = st.builds(lambda c, t: f'{{"coding":[{c}],"text":{t}}}', st.one_of(_coding, _values), _sometimes)
_name = st.builds(lambda g, s: f'[{{"given":[{g}],"period":{{"start":{s}}}}}]', _sometimes, _sometimes)
_fitting = st.builds(
    lambda i, c, n, more, end: f'{{"resourceType":"Patient","id":{i},"code":{c},"name":{n}{more}}}{end}',
    _sometimes,
    st.one_of(_code, _values),
    st.one_of(_name, _values),
    st.sampled_from(["", "", ",", ',"id":"2"', ',"x":1,"x":2', ',"matrix":[["a"],null]', ',"raw":{"a":1,"a":2}']),
    st.sampled_from(["", "", " ", "\r", "x", "{}", "\x0c"]),
)
_lines = st.one_of(
    _fitting.map(str.encode),
    _object(_values).map(str.encode),
    st.builds(lambda one, text, two: (one + text + two).encode(), _blank, _values, _blank),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b" ")),
    st.builds(
        lambda text, at, cut, junk: (b := text.encode())[: at % (len(b) + 1)] + junk + b[at % (len(b) + 1) + cut :],
        _fitting,
        st.integers(0, 200),
        st.integers(0, 3),
        st.sampled_from([b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc0\x80", b"\xed\xa0\x80", b'"', b"{", b"]", b","]),
    ),
)


@given(st.lists(_lines, min_size=1, max_size=8))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=DERANDOMIZE)
def test_it_refuses_what_duckdb_refuses_and_nothing_else(lines: list[bytes]) -> None:
    rejects, good = explained(lines)
    refused = {int(reject[3].split(":")[1]) for reject in rejects}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one")
        rows = 0
        for number, line in enumerate(lines, 1):
            # after a good line: DuckDB passes over a file that is nothing but a number without a newline
            path.write_bytes(b"{}\n" + line + b"\n")
            taken = strict(path)
            assert (taken is None) == (number in refused), line
            rows += (taken or 1) - 1
        path.write_bytes(b"".join(line + b"\n" for line in good))
        assert strict(path) == rows
    assert len(good) >= rows
    assert all(line in lines for line in good)


@pytest.mark.parametrize(
    "line",
    [
        b'{"x":' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"raw":' + b"[" * 990 + b"]" * 990 + b',"id":"1","id":"2"}',
        b'{"code":' + b"[" * 1010 + b"]" * 1010 + b"}",
        b'{"code":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"id":"1","x":[NaN,],"id":"2"}',
        b'{"id":"1","x":[NaN,]}',
        b"null",
        b"1",
    ],
)
def test_deep_and_lenient_lines_too(line: bytes, tmp_path: Path) -> None:
    rejects, _ = explained([b'{"id":"1"}', line])
    path = tmp_path / "one"
    path.write_bytes(b'{"id":"1"}\n' + line + b"\n")
    assert (strict(path) is None) == bool(rejects)


_doubling = st.lists(
    st.builds(
        lambda key, one, two, value: f'"{key}"{one}:{two}{value}',
        st.sampled_from(["a", "b", "\\u0061", '\\"', "\\u0022", "", ":", " :"]),
        st.sampled_from(["", " ", "  ", "\t", "\n"]),
        st.sampled_from(["", " "]),
        st.sampled_from(
            ["1", '":"', '"\\":"', '"\\" :"', '"\\u0022:"', '"\\"\\u003a"', '"\\"\\u0020:"', '" :"', "1e5", '{"a":1}']
        ),
    ),
    max_size=5,
)


@given(_doubling)
@settings(max_examples=EXAMPLES * 10, deadline=None, derandomize=DERANDOMIZE)
def test_a_doubled_key_is_never_overlooked(members: list[str]) -> None:
    text = ("{" + ",".join(members) + "}").encode()
    doubled = False

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal doubled
        doubled |= len(dict(items)) != len(items)
        return dict(items)

    parsed = json.loads(text, object_pairs_hook=pairs)
    assert may_double(text, parsed) or not doubled


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
def test_no_style_of_writing_is_taken_for_doubled_keys(indent: int | None, separators: tuple[str, str]) -> None:
    resource = {"resourceType": "Patient", "id": "é", "x": [{"y": 1.5, "z": 'a":b'}, None, {}]}
    text = json.dumps(resource, indent=indent, separators=separators).encode()
    assert not may_double(text, json.loads(text))


# ------------------------------------------------------------------------------------------ reasons and paths


@pytest.mark.parametrize(
    ("line", "reject"),
    [
        ('{"resourceType":"Patient","id":"p', ("?", "S:2", "Q-JSON", "S:2", None)),
        ('{"resourceType":"Patient","id":"p","x":"\\ud800"}', ("?", "S:2", "Q-CHARACTER", "S:2", None)),
        ('{"resourceType":"Patient","id":"p","code":[]}', ("Patient", "p", "Q-KIND", "S:2", "code")),
        (
            '{"resourceType":"Patient","id":"p","code":{"coding":[{"code":1},"SECRET"]}}',
            ("Patient", "p", "Q-KIND", "S:2", "code.coding"),
        ),
        (
            '{"resourceType":"Patient","id":"p","name":[{"period":{"start":"1","start":"SECRET"}}]}',
            ("Patient", "p", "Q-DUPLICATE-KEY", "S:2", "name.period.start"),
        ),
        ('["SECRET"]', ("?", "S:2", "Q-OBJECT", "S:2", None)),
        ('{"resourceType":"Observation","id":"p"}', ("Observation", "p", "Q-FOREIGN-TYPE", "S:2", None)),
        ('{"resourceType":"Patient"}', ("Patient", None, "Q-NO-ID", "S:2", None)),
        ("null", ("?", "S:2", "Q-OBJECT", "S:2", None)),
        ('{"id":"p","x":NaN}', ("?", "S:2", "Q-NO-TYPE", "S:2", None)),
    ],
)
def test_each_reject_says_where_and_why(line: str, reject: tuple) -> None:
    good = b'{"resourceType":"Patient","id":"1"}'
    rejects, kept = explained([good, line.encode(), b"", good], resource_type="Patient")
    assert rejects == [reject]
    assert kept == [good, good]
    assert "SECRET" not in json.dumps(rejects)


def test_a_line_of_the_right_type_passes_though_the_standard_minds_it() -> None:
    line = b'{"resourceType":"Patient","id":"1","x":NaN,}'
    assert explained([line], resource_type="Patient") == ([], [line])


def test_invalid_utf8_and_the_byte_order_mark() -> None:
    rejects, kept = explained([b'\xef\xbb\xbf{"id":"1"}', b'{"id":"\xff"}'])
    assert [reject[2] for reject in rejects] == ["Q-JSON", "Q-ENCODING"]
    assert kept == []


def test_a_line_that_is_too_long_is_refused_wherever_it_lies() -> None:
    long = b'{"resourceType":"Patient","id":"1","x":"' + b"a" * (16 * 2**20) + b'"}'
    rejects, kept = explained([b'{"id":"0"}', long, b'{"id":"2"}'])
    assert rejects == [("Patient", "1", "Q-SIZE", "S:2", None)]
    assert kept == [b'{"id":"0"}', b'{"id":"2"}']


def test_types_are_read_from_their_text() -> None:
    assert shape('STRUCT("sys""tem" VARCHAR, code STRUCT(x JSON[])[])[][]') == List(
        List({'sys"tem': None, "code": List({"x": List(None)})})
    )
    for text in ("BIGINT", "STRUCT(a VARCHAR", "VARCHAR x", "STRUCT()", "VARCHAR; DROP"):
        with pytest.raises(ValueError, match=r"VARCHAR|BIGINT|STRUCT"):
            shape(text)


def test_shards_in_a_pool_come_back_in_order(tmp_path: Path) -> None:
    suspects = []
    for number in range(3):
        path = tmp_path / f"{number}.ndjson"
        path.write_text('{"id":"1"}\n' * number + "x\n")
        suspects.append(Suspect(path, COLUMNS, tmp_path / f"good-{number}", None, f"S{number}"))
    found = list(explain_shards(suspects, jobs=2, subject="shards"))
    assert [[reject.position for reject in rejects] for rejects in found] == [["S0:1"], ["S1:2"], ["S2:3"]]


def test_it_is_fast_enough_to_stand_in_the_way(tmp_path: Path) -> None:
    resource = {
        "resourceType": "Observation",
        "id": "0",
        "code": {"coding": [{"system": "http://loinc.org", "code": "1", "display": "x" * 40}], "text": "y" * 40},
        "name": [{"given": ["a", "b"], "period": {"start": "2020-01-01"}}],
        "extension": [{"url": "http://example.org/" + "z" * 60, "valueString": "w" * 60}] * 5,
    }
    path = tmp_path / "1-0001.ndjson"
    path.write_bytes((json.dumps(resource, separators=(",", ":")).encode() + b"\n") * 50_000 + b"x\n")
    begun = time.perf_counter()
    assert len(explain_shard(path, COLUMNS, tmp_path / "good")) == 1
    assert time.perf_counter() - begun < 5  # about 0.5 s where nothing else runs
