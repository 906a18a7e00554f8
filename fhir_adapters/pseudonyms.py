"""Pseudonyms that a hospital makes with its own key: patient ids, re-hashed DICOM UIDs, linkage tokens.

Everything here is a keyed hash (HMAC-SHA-256): without the key nothing can be guessed back from a list of record numbers or
tax codes, with it the same value always gives the same pseudonym. The site's key never leaves the hospital; the key for
linkage is shared by the hospitals, and the central team holds neither. A key is never shown: not in `repr`, not in an error.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
import unicodedata
from pathlib import Path
from typing import ClassVar, Self

from fhir_adapters.errors import PalmaresError, machine_errors

KEY_BYTES = 32  # the shortest key taken; as long as the hash


class Key:
    """A secret of at least 32 bytes. Use `SiteKey` or `LinkageKey`."""

    variable: ClassVar[str]
    __slots__ = ("_secret",)

    def __init__(self, secret: bytes, *, subject: str = "key") -> None:
        """Raises E-KEY-03 when the secret is shorter than 32 bytes."""
        if len(secret) < KEY_BYTES:
            raise PalmaresError("E-KEY-03", subject, detail=f"it has fewer than {KEY_BYTES} bytes")
        self._secret = bytes(secret)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        """Worker processes get the key through a pipe; it is not written anywhere."""
        return type(self), (self._secret,)

    @classmethod
    def load(cls, key_file: Path | None) -> Self:
        """The key of a file, else of the environment variable (hex), else of the file that the variable with `_FILE` names.

        Raises E-KEY-01 (there is none), E-KEY-02 (group or others may read the file), E-KEY-03 (it is no key).
        """
        if key_file is None:
            text = os.environ.get(cls.variable)
            if text:
                return cls._of_hex(text, cls.variable)
            named = os.environ.get(f"{cls.variable}_FILE")
            if not named:
                raise PalmaresError("E-KEY-01", cls.variable)
            key_file = Path(named)
        path = Path(key_file)
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(mode):
                    raise PalmaresError("E-KEY-03", path.name, detail="it is no plain file")
                if mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise PalmaresError("E-KEY-02", path.name, path=path)
                text = file.read(4096).decode("ascii", "replace")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise PalmaresError("E-KEY-01", path.name) from None
        except PermissionError:
            raise PalmaresError("E-KEY-01", path.name, detail="this user may not read it") from None
        return cls._of_hex(text, path.name)

    @classmethod
    def _of_hex(cls, text: str, subject: str) -> Self:
        try:
            secret = bytes.fromhex(text.strip())
        except ValueError:
            raise PalmaresError("E-KEY-03", subject, detail="it is no hexadecimal text") from None
        return cls(secret, subject=subject)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Write a new random key, readable by this user alone.

        Raises E-KEY-04 when something stands there: a new key would cut every pseudonym made so far from its patient; E-KEY-05
        when the place lies in a repository.
        """
        path = Path(path)
        if any((folder / ".git").exists() for folder in path.resolve().parents):
            raise PalmaresError("E-KEY-05", path.name)
        secret = secrets.token_bytes(KEY_BYTES)
        with machine_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                raise PalmaresError("E-KEY-04", path.name) from None
            with os.fdopen(handle, "w", encoding="ascii") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(secret.hex() + "\n")
        return cls(secret)

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that tell two keys apart and give nothing of the key away: for logs and site checks."""
        return self._hash("fingerprint", "").hex()[:8]

    def _hash(self, kind: str, value: str) -> bytes:
        """HMAC-SHA-256 of kind and value, 32 bytes; the zero byte keeps ("ab", "c") and ("a", "bc") apart."""
        return hmac.digest(self._secret, f"palmares\0{kind}\0{value}".encode(), hashlib.sha256)


class SiteKey(Key):
    """The hospital's own key; from its key file, else `PALMARES_SITE_KEY`."""

    variable = "PALMARES_SITE_KEY"
    __slots__ = ()

    def pseudonym(self, kind: str, value: str) -> str:
        """32 hex digits for a value of a kind ("patient" for the hospital's record number).

        Blanks around the value and the two ways to write an accented letter make no difference; letter case and leading
        zeros do. Raises ValueError for an empty value.
        """
        value = unicodedata.normalize("NFC", value).strip(" \t\r\n\0")
        if not value:
            raise ValueError("an empty value has no pseudonym")
        return self._hash(kind, value).hex()[:32]

    def sealed(self, text: str) -> str:
        """A text that only this key reads again: for what a run has to remember and what may name a patient (AES-256-GCM)."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(12)
        return base64.b64encode(nonce + AESGCM(self._hash("sealed", "")).encrypt(nonce, text.encode(), None)).decode()

    def unsealed(self, text: str) -> str | None:
        """What `sealed` made a text of; None when it was another key's, or was changed."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            data = base64.b64decode(text, validate=True)
            return AESGCM(self._hash("sealed", "")).decrypt(data[:12], data[12:], None).decode()
        except (InvalidTag, ValueError):
            return None

    def uid(self, original: str) -> str:
        """A DICOM UID for a DICOM UID: `2.25.` and the decimal form of a UUID (version 8: custom), at most 44 characters.

        Raises ValueError for an empty UID.
        """
        original = original.strip(" \0")
        if not original:
            raise ValueError("an empty UID has no pseudonym")
        digest = bytearray(self._hash("uid", original)[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return f"2.25.{int.from_bytes(digest, 'big')}"


class LinkageKey(Key):
    """The key that the hospitals share to find a patient who was treated at two of them; `PALMARES_LINKAGE_KEY`."""

    variable = "PALMARES_LINKAGE_KEY"
    __slots__ = ()

    @classmethod
    def of_environment(cls) -> Self | None:
        """The linkage key, or None where the hospital has set none: its patients are then linked to no other hospital's."""
        return cls.load(None) if os.environ.get(cls.variable) or os.environ.get(f"{cls.variable}_FILE") else None

    def token(self, codice_fiscale: str) -> str:
        """64 hex digits for a codice fiscale. Raises ValueError when its check character or its form is wrong.

        Omocodia is kept: its letters are what tells apart two persons whose codes would be equal.
        """
        reason = codice_fiscale_error(codice_fiscale)
        if reason is not None:
            raise ValueError(f"no codice fiscale: {reason}")
        return self._hash("codice-fiscale", _compact(codice_fiscale)).hex()


def linkage_token(codice_fiscale: str, linkage_key: LinkageKey) -> str:
    """The token that the sites exchange for a patient; see `LinkageKey.token`."""
    return linkage_key.token(codice_fiscale)


# --- the Italian tax code (DM 23 December 1976 and DM 12 March 1974, art. 7: omocodia) ----------------------------------

_FORM = re.compile(r"[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]")
_OMOCODIA = str.maketrans("LMNPQRSTUV", "0123456789")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EVEN = dict(zip(_ALPHABET, [*range(10), *range(26)], strict=True))
_ODD_TEN = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)  # 0–9, and A–J the same
_ODD = dict(
    zip(
        _ALPHABET,
        [*_ODD_TEN, *_ODD_TEN, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23],
        strict=True,
    )
)


def _compact(text: str) -> str:
    return re.sub(r"\s", "", text).upper()


def check_character(first_fifteen: str) -> str:
    """The last letter of a codice fiscale whose first 15 characters are given (letters A–Z and digits)."""
    values = (_ODD[c] if place % 2 == 0 else _EVEN[c] for place, c in enumerate(first_fifteen))
    return chr(ord("A") + sum(values) % 26)


def without_omocodia(codice_fiscale: str) -> str:
    """The same code with the letters that stand for digits turned back, and its check character made anew."""
    code = list(_compact(codice_fiscale))
    for place in (6, 7, 9, 10, 12, 13, 14):
        code[place] = code[place].translate(_OMOCODIA)
    first = "".join(code[:15])
    return first + check_character(first)


def codice_fiscale_error(text: str) -> str | None:
    """None for a valid personal codice fiscale, else what is wrong: `length`, `form`, `day` or `check`.

    Blanks and letter case are forgiven. The provisional code of eleven digits is not taken: it changes, so it links nobody.
    """
    code = _compact(text)
    if len(code) != 16:
        return "length"
    if not text.isascii() or not _FORM.fullmatch(code):
        return "form"
    day = int(code[9:11].translate(_OMOCODIA))
    if not (1 <= day <= 31 or 41 <= day <= 71):  # women have 40 added
        return "day"
    if check_character(code[:15]) != code[15]:
        return "check"
    return None
