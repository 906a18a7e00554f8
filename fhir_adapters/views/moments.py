"""Dates, times and decimals with their precision: FHIRPath's comparison and its lowBoundary and highBoundary, as SQL.

A date or time covers a span: "2021-03" the whole of March. Two spans compare to true or false only when that holds for every
moment in them, else to NULL, FHIRPath's empty (hl7.org/fhirpath, "Date/Time Comparison"). Values that both have a zone are
compared as instants; where one has none, the wall clocks are compared.
Boundaries: a dateTime without zone may lie anywhere between +14:00 and -12:00 (FHIRPath CI build, "lowBoundary").
"""

_ZONE = "(Z|[+-][0-9]{2}:[0-9]{2})$"


def _span(x: str, type_: str) -> tuple[str, str]:
    """(first microsecond on the wall clock, width in microseconds) of the span that a date or time covers."""
    text = f"('1970-01-01T' || {x})" if type_ == "time" else x
    full = f"(CASE WHEN length({text}) < 10 THEN {text} || substr('0000-01-01', length({text}) + 1) ELSE {text} END)"
    start = f"TRY_CAST({full} AS TIMESTAMP)"
    end = (
        f"(CASE length({text}) WHEN 4 THEN {start} + INTERVAL 1 YEAR WHEN 7 THEN {start} + INTERVAL 1 MONTH"
        f" WHEN 10 THEN {start} + INTERVAL 1 DAY WHEN 13 THEN {start} + INTERVAL 1 HOUR"
        f" WHEN 16 THEN {start} + INTERVAL 1 MINUTE ELSE {start} + INTERVAL 1 MICROSECOND END)"
    )
    return f"epoch_us({start})", f"(epoch_us({end}) - epoch_us({start}))"


def compare(operator: str, a: str, a_type: str, b: str, b_type: str, name: str) -> str:
    """SQL (boolean or NULL) of `a operator b` for two dates or times; operator is one of = < <= > >=.

    `name` is a free name for a lambda's parameter: the two spans are worked out once, as the fields of a struct.
    """
    if operator in (">", ">="):
        return compare({">": "<", ">=": "<="}[operator], b, b_type, a, a_type, name)
    (a_low, a_width), (b_low, b_width) = _span(a, a_type), _span(b, b_type)
    if "time" not in (a_type, b_type):
        zoned = f"(regexp_matches({a}, '{_ZONE}') AND regexp_matches({b}, '{_ZONE}'))"
        a_low = f"(CASE WHEN {zoned} THEN epoch_us(TRY_CAST({a} AS TIMESTAMPTZ)) ELSE {a_low} END)"
        b_low = f"(CASE WHEN {zoned} THEN epoch_us(TRY_CAST({b} AS TIMESTAMPTZ)) ELSE {b_low} END)"
    spans = f"{{'a': {a_low}, 'wide_a': {a_width}, 'b': {b_low}, 'wide_b': {b_width}}}"
    same = f"({name}.a = {name}.b AND {name}.wide_a = {name}.wide_b)"
    before, after = f"{name}.a + {name}.wide_a <= {name}.b", f"{name}.b + {name}.wide_b <= {name}.a"
    true, false = {
        "=": (same, f"{before} OR {after}"),
        "<": (before, f"{after} OR {same}"),
        "<=": (f"{before} OR {same}", after),
    }[operator]
    return f"list_transform([{spans}], lambda {name}: CASE WHEN {true} THEN true WHEN {false} THEN false END)[1]"


# digits of a date or time → letters of its text (FHIRPath CI build, "lowBoundary")
_LETTERS = {
    "date": {4: 4, 6: 7, 8: 10},
    "dateTime": {4: 4, 6: 7, 8: 10, 10: 13, 12: 16, 14: 19, 17: 23},
    "time": {2: 2, 4: 5, 6: 8, 9: 12},
}
_MOST_DECIMALS = 28


def boundary(x: str, type_: str, precision: int | None = None, *, high: bool) -> str:
    """SQL of the first or last value of the same type that a date or time may stand for, in full precision or in so many digits.

    A number of digits that no such value has gives NULL.
    """
    whole = _whole_boundary(x, type_, high=high)
    if precision is None:
        return whole
    letters = _LETTERS[type_].get(precision)
    if letters is None:
        return "CAST(NULL AS VARCHAR)"
    zone = f" || regexp_extract({whole}, '{_ZONE}')" if type_ == "dateTime" and letters > 10 else ""
    return f"(substr({whole}, 1, {letters}){zone})"


def _whole_boundary(x: str, type_: str, *, high: bool) -> str:
    if type_ == "time":
        return _clock(x, high=high)
    month = f"CAST(last_day(TRY_CAST({x} || '-01' AS DATE)) AS VARCHAR)" if high else f"{x} || '-01'"
    day = (
        f"(CASE length({x}) WHEN 4 THEN {x} || '{'-12-31' if high else '-01-01'}'"
        f" WHEN 7 THEN {month} ELSE substr({x}, 1, 10) END)"
    )
    if type_ == "date":
        return day
    zone = f"regexp_extract({x}, '{_ZONE}')"
    clock = _clock(f"regexp_replace(substr({x}, 12), '{_ZONE}', '')", high=high)
    rest = f"(CASE WHEN length({x}) > 10 THEN {clock} ELSE '{'23:59:59.999' if high else '00:00:00.000'}' END)"
    spread = "-12:00" if high else "+14:00"
    return f"({day} || 'T' || {rest} || CASE {zone} WHEN '' THEN '{spread}' ELSE {zone} END)"


def _clock(x: str, *, high: bool) -> str:
    full = "23:59:59.999" if high else "00:00:00.000"
    # a fraction shorter than milliseconds is filled digit by digit; a longer one is kept
    return f"({x} || substr('{full}', length({x}) + 1))"


def decimal_boundary(text: str, precision: int | None = None, *, high: bool) -> str:
    """SQL of the number, as DOUBLE, half a unit of the last digit below or above a decimal given as text.

    With a precision, the next number of so many decimals below or above that; NULL where there is none of so many.
    """
    if precision is not None and not 0 <= precision <= _MOST_DECIMALS:
        return "CAST(NULL AS DOUBLE)"
    lower = f"lower({text})"
    digits = f"length(split_part(split_part({lower}, 'e', 1), '.', 2))"
    exponent = f"coalesce(TRY_CAST(split_part({lower}, 'e', 2) AS INTEGER), 0)"
    scale = f"({digits} - {exponent})"
    half = f"0.5 * pow(10.0, -{scale})"
    whole = f"round(TRY_CAST({text} AS DOUBLE) {'+' if high else '-'} {half}, CAST({scale} + 1 AS INTEGER))"
    if precision is None:
        return whole
    # the inner rounding hides binary fractions, which floor and ceil would take for a step
    steps = f"{'ceil' if high else 'floor'}(round({whole} * pow(10.0, {precision}), 6)) / pow(10.0, {precision})"
    return f"(CASE WHEN {precision} > {scale} THEN {whole} ELSE {steps} END)"
