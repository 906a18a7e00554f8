"""Codici fiscali and record numbers: valid, distinct, and of the right person."""

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.pseudonyms import check_character, codice_fiscale_error
from omop_etl.synthetic.parameters import load
from omop_etl.synthetic.people import codice_fiscale, given_letters, identity, record_number, surname_letters

NAMES = st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ' ", min_size=1, max_size=20).filter(
    lambda name: any(letter.isalpha() for letter in name)
)


@given(NAMES, NAMES, st.sampled_from(["female", "male"]), st.dates(date(1900, 1, 1), date(2024, 12, 31)))
def test_every_codice_fiscale_is_valid(surname: str, name: str, sex: str, birth: date) -> None:
    code = codice_fiscale(surname, name, sex, birth, "H501")
    assert codice_fiscale_error(code) is None
    assert int(code[9:11]) % 40 == birth.day
    assert (int(code[9:11]) > 40) == (sex == "female")


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=15, max_size=15), st.data())
def test_the_check_character_finds_one_changed_character(first: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, 14))
    same_kind = "0123456789" if first[place].isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    other = data.draw(st.sampled_from([letter for letter in same_kind if letter != first[place]]))
    changed = first[:place] + other + first[place + 1 :]
    assert check_character(first) != check_character(changed)


def test_letters_of_names_follow_the_decree() -> None:
    assert surname_letters("Rossi") == "RSS"
    assert surname_letters("Fo") == "FOX"
    assert surname_letters("De Luca") == "DLC"
    assert given_letters("Maria") == "MRA"
    assert given_letters("Francesca") == "FNC"  # of four or more consonants the second is left out
    assert given_letters("Ada") == "DAA"


def test_no_two_humans_share_a_codice_fiscale() -> None:
    table = load()["identity"]
    birth = date(1960, 5, 5)
    for sex, count in (("female", 24000), ("male", 6000)):
        codes = {identity(f"H{number:06}", sex, birth, table).codice_fiscale for number in range(count)}
        assert len(codes) == count


def test_record_numbers_are_distinct_within_a_site() -> None:
    assert len({record_number("site01", number) for number in range(20000)}) == 20000
    assert record_number("site01", 3) != record_number("site02", 3)
