"""How a hospital's record number is written, declared once per source: 123 and 00123 are one patient only when the site says so."""


def record_number(text: str, digits: int = 0) -> str:
    """The number as it goes into the pseudonym: without blanks around it; with `digits`, a number of digits alone has that many.

    `digits` 0 takes every number as it stands. A number that is longer without its zeros, or holds more than digits, stays as
    it is. Systems of one hospital that write the number differently (the PACS 00123, the eCRF 123) declare the same `digits`.
    """
    text = text.strip(" \t\r\n\0")
    if digits and text.isascii() and text.isdecimal():
        return (text.lstrip("0") or "0").rjust(digits, "0")
    return text
