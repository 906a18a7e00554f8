"""Pseudonyms: stable, keyed, different per kind; keys that nobody else can read and that nothing shows."""

import pickle
import stat
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import (
    LinkageKey,
    SiteKey,
    check_character,
    codice_fiscale_error,
    linkage_token,
    without_omocodia,
)

KEY = SiteKey(bytes(range(32)))
OTHER = SiteKey(bytes(range(1, 33)))


def code(exception: pytest.ExceptionInfo[PalmaresError]) -> str:
    return exception.value.code


def test_a_pseudonym_is_32_hex_digits_and_never_changes() -> None:
    # a fixed value: a change of the hash would orphan every patient submitted so far
    assert KEY.pseudonym("patient", "0012345") == "75dcaba2e2feb42aaf0ba7b68d7f4cd9"
    assert KEY.uid("1.2.840.113619.2.1") == "2.25.21585497571425337203128506110442122930"


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_other_value_other_kind_other_key_other_pseudonym(one: str, two: str) -> None:
    strip = " \t\r\n\0"
    same = unicodedata.normalize("NFC", one).strip(strip) == unicodedata.normalize("NFC", two).strip(strip)
    if not one.strip(strip) or not two.strip(strip):
        return
    assert (KEY.pseudonym("patient", one) == KEY.pseudonym("patient", two)) == same
    assert KEY.pseudonym("patient", one) != KEY.pseudonym("device", one)
    assert KEY.pseudonym("patient", one) != OTHER.pseudonym("patient", one)


def test_padding_and_accents_make_no_difference() -> None:
    assert KEY.pseudonym("patient", " 12\0") == KEY.pseudonym("patient", "12")
    assert KEY.pseudonym("patient", "e\u0301") == KEY.pseudonym("patient", "\u00e9")
    assert KEY.pseudonym("patient", "012") != KEY.pseudonym("patient", "12")


@given(st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True))
def test_a_rehashed_uid_is_a_uid(original: str) -> None:
    uid = KEY.uid(original)
    root, number = uid.rsplit(".", 1)
    assert root == "2.25" and number.isdigit() and len(number) <= 39 and len(uid) <= 64 and number[0] != "0"
    assert original not in uid or len(original) < 6
    assert KEY.uid(original + "\0") == uid != OTHER.uid(original)


@pytest.mark.parametrize("value", ["", " ", "\0"])
def test_nothing_has_no_pseudonym(value: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        KEY.pseudonym("patient", value)
    with pytest.raises(ValueError, match="empty"):
        KEY.uid(value)


def test_a_key_is_made_readable_by_this_user_alone_and_is_not_overwritten(tmp_path) -> None:
    path = tmp_path / "keys" / "prova.key"
    made = SiteKey.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SiteKey.load(path).pseudonym("patient", "1") == made.pseudonym("patient", "1")
    before = path.read_text()
    with pytest.raises(PalmaresError) as raised:
        SiteKey.create(path)
    assert code(raised) == "E-KEY-04" and path.read_text() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o610])
def test_a_key_that_others_can_touch_is_refused(tmp_path, mode) -> None:
    path = tmp_path / "prova.key"
    SiteKey.create(path)
    path.chmod(mode)
    with pytest.raises(PalmaresError) as raised:
        SiteKey.load(path)
    assert code(raised) == "E-KEY-02" and f"chmod 600 {path}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", "E-KEY-03"),
        ("no hex at all", "E-KEY-03"),
        ("ab" * 31, "E-KEY-03"),
        ("ab" * 31 + "a", "E-KEY-03"),
        ("\u00e9" * 64, "E-KEY-03"),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path, text, number) -> None:
    path = tmp_path / "prova.key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(PalmaresError) as raised:
        SiteKey.load(path)
    assert code(raised) == number
    assert not text or text not in str(raised.value)


def test_no_file_and_no_variable(tmp_path, monkeypatch) -> None:
    for path in (tmp_path / "absent.key", tmp_path, None):
        with pytest.raises(PalmaresError) as raised:
            SiteKey.load(path)
        assert code(raised) == "E-KEY-01"
    monkeypatch.setenv("PALMARES_SITE_KEY", bytes(range(32)).hex() + "\n")
    assert SiteKey.load(None).pseudonym("patient", "1") == KEY.pseudonym("patient", "1")
    monkeypatch.setenv("PALMARES_SITE_KEY", "zz" * 32)
    with pytest.raises(PalmaresError) as raised:
        SiteKey.load(None)
    assert code(raised) == "E-KEY-03" and "zz" not in str(raised.value)


def test_a_key_shows_itself_nowhere_and_still_reaches_a_worker() -> None:
    secret = bytes(range(32)).hex()
    shown = f"{KEY!r} {KEY} {KEY.fingerprint}"
    assert secret not in shown and str(bytes(range(32))) not in shown
    assert not hasattr(KEY, "__dict__")
    assert len(KEY.fingerprint) == 8 and KEY.fingerprint != OTHER.fingerprint
    again = pickle.loads(pickle.dumps(KEY))  # noqa: S301 - our own bytes
    assert again.pseudonym("patient", "1") == KEY.pseudonym("patient", "1")
    with pytest.raises(PalmaresError):
        SiteKey(b"short")


# made-up persons; the check letters follow from the published table
VALID = ["RSSMRA85T10A562S", "RSSMRA80A01H501U", "BNCGLI70H41F205T"]


def test_valid_codes() -> None:
    for text in VALID:
        assert codice_fiscale_error(text) is None, text
        assert codice_fiscale_error(f" {text[:6].lower()} {text[6:]} ") is None
    assert codice_fiscale_error("RSSMRA85T10A56NH") is None  # omocodia: N stands for 2
    assert without_omocodia("RSSMRA85T10A56NH") == "RSSMRA85T10A562S"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "length"),
        ("RSSMRA85T10A562", "length"),
        ("12345678903", "length"),
        ("RSSMRA85G10A562S", "form"),
        ("R5SMRA85T10A562S", "form"),
        ("RSSMRA85T10AAA2S", "form"),
        ("R\u017fSMRA85T10A562S", "form"),
        ("RSSMRA85T00A562S", "day"),
        ("RSSMRA85T32A562S", "day"),
        ("RSSMRA85T72A562S", "day"),
        ("RSSMRA85T10A562T", "check"),
    ],
)
def test_invalid_codes(text: str, reason: str) -> None:
    assert codice_fiscale_error(text) == reason
    with pytest.raises(ValueError, match=reason) as raised:
        linkage_token(text, LinkageKey(bytes(32)))
    assert not text or text not in str(raised.value)


@given(st.sampled_from(VALID), st.integers(0, 14), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
def test_one_wrong_character_is_always_found(text: str, place: int, other: str) -> None:
    if other != text[place]:
        assert codice_fiscale_error(text[:place] + other + text[place + 1 :]) is not None


def test_the_linkage_token_is_the_same_at_both_hospitals() -> None:
    shared = LinkageKey(bytes(range(40)))
    token = linkage_token(VALID[0], shared)
    assert len(token) == 64 and int(token, 16) >= 0
    assert token == linkage_token(f" {VALID[0].lower()}", LinkageKey(bytes(range(40))))
    assert token != linkage_token(VALID[0], LinkageKey(bytes(32)))
    assert token != linkage_token("RSSMRA85T10A56NH", shared)  # another person
    assert check_character(VALID[1][:15]) == "U"


def test_a_key_may_come_from_a_file_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LinkageKey.variable, raising=False)
    assert LinkageKey.of_environment() is None
    path = tmp_path / "linkage.key"
    made = LinkageKey.create(path)
    monkeypatch.setenv(f"{LinkageKey.variable}_FILE", str(path))
    found = LinkageKey.of_environment()
    assert found is not None and found.fingerprint == made.fingerprint
    path.chmod(0o644)
    with pytest.raises(PalmaresError) as caught:
        LinkageKey.of_environment()
    assert code(caught) == "E-KEY-02"


@given(st.from_regex(r"[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}", fullmatch=True))
def test_the_check_character_is_that_of_python_codicefiscale(first: str) -> None:
    """A maintained library computes the same; its whole validation would also refuse places of birth that its list lacks."""
    from codicefiscale import codicefiscale

    assert codicefiscale.encode_cin(first) == check_character(first)


def test_no_key_is_made_in_a_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(PalmaresError) as caught:
        SiteKey.create(tmp_path / "mappings" / "sites" / "keys" / "prova.key")
    assert code(caught) == "E-KEY-05"
    assert not (tmp_path / "mappings").exists()
