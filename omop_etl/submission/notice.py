"""What a hospital tells the centre after a BLOCK, when no submission may leave: that it is blocked, and by which checks.

    <submission>/../notice/notice.json       at the hospital; a submission that is packed later removes it
    <intake>/../notices/<site>.json          at the centre; beside the intake, so that nothing of it gets into the warehouse

Numbers only, those that `history.record` keeps of a run: verdict, counts, each check that is not PASS and each of the study with its two
counts, and the profile. No row, no id, no file of the slice. Which of two is newer, a notice or a submission, their own hospital's clock says.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file, whole_folder
from omop_etl.gates import VERDICTS
from omop_etl.gates.slices import Slice, read_json
from omop_etl.submission.contents import SUBMISSION, is_site, relative_files
from omop_etl.submission.history import FORMAT, KEPT, record

NOTICE = "notice.json"
FOLDER, AT_CENTRE = "notice", "notices"
Search = Callable[[Sequence[Path]], None]

_LARGEST = 4 * 2**20  # bytes; one that names every check there is has less than one million
_LONGEST = 400  # characters of a check's title
_DEEPEST = 6
_FIGURES = ("persons", "rows", "unmapped_records", "quarantined")
_KEYS = {"format", "site", "number", "received_at", "extracted_to", "verdict", "counts", "checks", "profile", *_FIGURES}
_CODE = re.compile(r"[A-Z]-[A-Za-z0-9_.-]{1,150}")
_NUMBER = re.compile(r"[0-9a-f]{16}")
_MOMENT, _DAY = "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"


def beside(submission: Path) -> Path:
    """The folder of the notice that belongs to this submission folder: `notice` beside `submission`."""
    submission = Path(submission)
    return submission.with_name(FOLDER if submission.name == "submission" else f"{submission.name}-{FOLDER}")


def write_notice(folder: Path, opened: Slice, verdict: dict[str, Any], search: Search | None = None) -> None:
    """Write the notice of a blocked slice, whole or not at all; the same run told again leaves it as it is.

    `search` looks through the file before it stands in its place, and raises when it may not leave.
    """
    said = record(
        opened.site, str(verdict["slice_sha256"])[:16], verdict, opened.manifest, opened.extracted_to, datetime.now(UTC)
    )
    there = _there(folder)
    if there is not None and there | {"received_at": ""} == said | {"received_at": ""}:
        if search is not None:
            search([folder / NOTICE])
        return
    with whole_folder(folder) as partial:
        (partial / NOTICE).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        if search is not None:
            search([partial / NOTICE])


def remove_notice(folder: Path, site: str) -> None:
    """Take back what was told: a submission of the site is packed. Another site's notice stays; one that does not read goes."""
    there = _there(folder)
    if (folder / NOTICE).is_file() and (there is None or there["site"] == site):
        (folder / NOTICE).unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _there(folder: Path) -> dict[str, Any] | None:
    try:
        return read_notice(folder / NOTICE)
    except PalmaresError:
        return None


def announced_notice(folder: Path) -> dict[str, Any]:
    """The notice in a folder that arrived. Raises E-RECEIVE-06, E-RECEIVE-04 for any other file beside it."""
    strange = relative_files(folder) - {NOTICE}
    if strange:
        raise PalmaresError("E-RECEIVE-04", str(folder), count=len(strange))
    return read_notice(folder / NOTICE)


def read_notice(path: Path) -> dict[str, Any]:
    """A notice, held against its shape: what it names is what a notice holds, each of its type and size. Raises E-RECEIVE-06."""

    def wrong(what: str) -> PalmaresError:
        return PalmaresError("E-RECEIVE-06", str(path), detail=what)

    if path.is_symlink() or not path.is_file():
        raise wrong("it is missing, or no file")
    if path.stat().st_size > _LARGEST:
        raise wrong("it is too large for one")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise wrong("it is no JSON") from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise wrong("a format that this version does not know")
    if not is_site(said.get("site")):
        raise wrong("no site")
    if set(said) != _KEYS:
        raise wrong("it does not hold what a notice holds, or holds more")
    tests = {
        "number": isinstance(said["number"], str) and _NUMBER.fullmatch(said["number"]),
        "received_at": _is_time(said["received_at"], _MOMENT),
        "extracted_to": said["extracted_to"] is None or _is_time(said["extracted_to"], _DAY),
        "verdict": said["verdict"] == "BLOCK",
        "counts": _are_counts(said["counts"]),
        "checks": isinstance(said["checks"], list) and all(_is_check(check) for check in said["checks"]),
        "profile": said["profile"] is None or _is_profile(said["profile"]),
    } | {name: _is_count(said[name]) for name in _FIGURES}
    for name, held in tests.items():
        if not held:
            raise wrong(f"{name} is not what it must be")
    if all(check["verdict"] != "BLOCK" for check in said["checks"]):
        raise wrong("no check of it is BLOCK")
    if len({check["code"] for check in said["checks"]}) != len(said["checks"]):
        raise wrong("a check is named twice")
    return said


def _is_time(value: object, form: str) -> bool:
    try:
        return isinstance(value, str) and datetime.strptime(value, form).strftime(form) == value
    except ValueError:
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and set(value) <= set(VERDICTS) and all(map(_is_count, value.values()))


def _is_check(check: object) -> bool:
    if not isinstance(check, dict) or set(check) != set(KEPT):
        return False
    codes = all(isinstance(check[key], str) and _CODE.fullmatch(check[key]) for key in ("code", "family"))
    words = all(isinstance(check[key], str) and len(check[key]) <= _LONGEST for key in ("title", "unit"))
    bounds = all(check[key] is None or _is_percent(check[key]) for key in ("warn", "block"))
    named = check["verdict"] in VERDICTS and check["severity"] in ("BLOCK", "WARN", "REPORT")
    return codes and words and bounds and named and _is_count(check["numerator"]) and _is_count(check["denominator"])


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def _is_profile(value: object) -> bool:
    return isinstance(value, dict) and _is_count(value.get("analysable", 0)) and _is_plain(value)


def _is_plain(value: object, depth: int = 0) -> bool:
    """Numbers under short names, and nothing that is long or deep."""
    if isinstance(value, dict):
        return depth < _DEEPEST and all(
            len(name) <= _LONGEST and _is_plain(one, depth + 1) for name, one in value.items()
        )
    if isinstance(value, list):
        return depth < _DEEPEST and all(_is_plain(one, depth + 1) for one in value)
    return value is None or isinstance(value, int | float)


# ------------------------------------------------------------------ the centre


def place_of(intake: Path, site: str) -> Path:
    """Where the centre keeps a site's notice."""
    return Path(intake).absolute().parent / AT_CENTRE / f"{site}.json"


def keep_notice(intake: Path, said: dict[str, Any]) -> bool:
    """Keep a notice that was read and is held to be true; False when this very one had been there."""
    place = place_of(intake, said["site"])
    try:
        if read_notice(place) == said:
            return False
    except PalmaresError:
        pass  # none there, or damaged: it is kept anew
    with whole_file(place) as path:
        path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return True


def drop_notice(intake: Path, site: str, made_at: object, *, anew: bool) -> None:
    """A submission has arrived: what the site told before it was packed holds no longer. One told later stays."""
    place = place_of(intake, site)
    if not place.exists():
        return
    try:
        said = read_notice(place)
    except PalmaresError:
        said = None
    if said is None or is_older(said, made_at) or (anew and moment(said["received_at"]) == moment(made_at)):
        place.unlink(missing_ok=True)


def packed_at(submission: Path) -> object:
    """When a submission was packed, as it says itself; None where none stands, or none that reads."""
    try:
        return read_json(submission / SUBMISSION, "E-RECEIVE-01").get("made_at")
    except PalmaresError:
        return None


def is_older(said: dict[str, Any], made_at: object) -> bool:
    """Whether a notice was told before a submission was packed."""
    told, packed = moment(said["received_at"]), moment(made_at)
    return told is not None and packed is not None and told < packed


def moment(value: object) -> datetime | None:
    """An instant, to the second; None for what is none."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).replace(microsecond=0)


def notices(intake: Path) -> dict[str, dict[str, Any]]:
    """Site → the notice that the centre keeps. Raises E-RECEIVE-06 for one that does not read: that a site is blocked is not passed over."""
    found = {}
    for path in sorted((Path(intake).absolute().parent / AT_CENTRE).glob("[!.]*.json")):
        said = read_notice(path)
        if said["site"] != path.stem:
            raise PalmaresError("E-RECEIVE-06", str(path), detail="it is of another site")
        found[path.stem] = said
    return found
