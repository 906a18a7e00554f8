"""The allow-list of what may pass from a hospital's systems into FHIR: `allow_list.toml`, read and checked.

The file's comments say what each kind of value lets through. A defect in it is a defect of ours, found when it is read.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

KINDS = frozenset(
    "uid public-uid pseudonym number date time date-time step-date word coded body-part listed present used".split()  # noqa: SIM905
)
OVER = frozenset(["commonest", "first", "any"])
_SETTINGS = {"tag", "vr", "as", "to", "unit", "least", "most", "words", "list", "over", "why"}


class AllowListError(ValueError):
    """`allow_list.toml` contradicts itself; the text names the entry."""


@dataclass(frozen=True)
class DicomElement:
    """One permitted element of a DICOM header.

    `path` holds its tags from the outside in, as `0xGGGGEEEE`; all but the last are sequences. `to` holds where its
    values go, one name per value.
    """

    keyword: str
    path: tuple[int, ...]
    vr: str
    kind: str
    to: tuple[str, ...]
    why: str
    unit: str = ""
    least: float = 0.0
    most: float = 0.0
    words: tuple[str, ...] = ()
    list: str = ""
    over: str = "commonest"


@dataclass(frozen=True)
class DicomAllowList:
    """What of a DICOM header may pass (`keep`, in the file's order), what is left out and why, and the lists of texts.

    `texts`: list → text in upper case → the text that is written. `patterns`: list → what a text must match whole.
    `report_classes`: how the SOP classes of structured reports begin.
    """

    keep: Mapping[str, DicomElement]
    leave_out: Mapping[str, str]
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    patterns: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    report_classes: str = ""


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("allow_list.toml").read_text(encoding="utf-8"))


@cache
def fingerprint() -> str:
    """A hash of the whole list: what was read under another one is not comparable."""
    return hashlib.sha256(Path(__file__).with_name("allow_list.toml").read_bytes()).hexdigest()[:16]


@cache
def dicom() -> DicomAllowList:
    """The `[dicom]` part."""
    part = _document()["dicom"]
    texts: dict[str, dict[str, str]] = {}
    patterns = {}
    for name, content in part["lists"].items():
        if "pattern" in content:
            patterns[name] = re.compile(content["pattern"], re.ASCII)
        else:
            texts[name] = {text: shown or text for shown, known in content.items() for text in known}
    keep = {keyword: _element(keyword, settings) for keyword, settings in part["keep"].items()}
    for element in keep.values():
        if element.kind == "listed" and element.list not in texts and element.list not in patterns:
            raise AllowListError(f"dicom.keep.{element.keyword}: no list {element.list}")
    return DicomAllowList(keep, part["leave_out"], texts, patterns, part["reports"]["classes"])


def _element(keyword: str, settings: Mapping[str, Any]) -> DicomElement:
    def wrong(what: str) -> AllowListError:
        return AllowListError(f"dicom.keep.{keyword}: {what}")

    if unknown := settings.keys() - _SETTINGS:
        raise wrong(f"unknown setting {min(unknown)}")
    if missing := {"tag", "vr", "as", "why"} - settings.keys():
        raise wrong(f"no {min(missing)}")
    path = tuple(int(tag.replace(",", ""), 16) for tag in settings["tag"].split("/"))
    if any(tag >> 16 & 1 for tag in path):
        raise wrong("a private tag")
    kind, over, to = settings["as"], settings.get("over", "commonest"), settings.get("to", ())
    if kind not in KINDS or over not in OVER:
        raise wrong("unknown kind")
    if bool(to) == (kind == "used"):
        raise wrong("`to` is for what is written, and only for that")
    if kind == "number" and not settings.get("least", 0) < settings.get("most", 0):
        raise wrong("a number needs least < most")
    return DicomElement(
        keyword=keyword,
        path=path,
        vr=settings["vr"],
        kind=kind,
        to=(to,) if isinstance(to, str) else tuple(to),
        why=settings["why"],
        unit=settings.get("unit", ""),
        least=settings.get("least", 0.0),
        most=settings.get("most", 0.0),
        words=tuple(settings.get("words", ())),
        list=settings.get("list", ""),
        over=over,
    )
