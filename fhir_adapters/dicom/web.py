"""The `dicomweb` source: QIDO-RS lists the studies, WADO-RS gives the metadata of their instances; no pixel is asked for.

dicomweb-client speaks the protocol; its session is the toolkit's own web client, so that patience, signing in and silence are
those of every other server.
"""

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.dicom import archive
from fhir_adapters.dicom.archive import Answer, ArchiveReader, StudyLost
from fhir_adapters.dicom.extraction import YIELDS
from fhir_adapters.dicom.headers import Header, Wanted, header_of_json
from fhir_adapters.dicom.windows import Window
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web import sign_in, web
from fhir_adapters.fhir_web.web import Again, Refused, Web

if TYPE_CHECKING:
    from pydicom import Dataset
    from requests import Response

    from fhir_adapters.pseudonyms import SiteKey

_GONE = frozenset({404, 410})
_LIST = 1000  # series asked for at a time, where a server gives as many


@adapter
class DicomWeb:
    """A DICOMweb server."""

    kind: ClassVar[str] = "dicomweb"
    yields: ClassVar[frozenset[str]] = YIELDS
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        **{name: setting for name, setting in web.SETTINGS.items() if name not in ("url", "link_base", "parallel")},
        "url": Setting(str, "where QIDO-RS and WADO-RS begin, e.g. https://pacs.example.org/dicom-web", required=True),
        **sign_in.SETTINGS,
        **archive.SETTINGS,
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        """Raises E-SRC-02, E-SRC-03, E-FHIR-12 (http to another machine)."""
        self._settings = {**settings, "link_base": ""}
        self._reader = ArchiveReader(self.kind, settings, key)
        web.check(self._settings)

    def extract(
        self,
        out: Path,
        *,
        full: bool = False,
        state: Mapping[str, Any] | None = None,
        known: Path | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Write what changed since `state` (or all). Raises E-FHIR-01 … -12 (the server), E-PACS-04 … -06, E-SRC-07, E-DISK-…."""
        return self._reader.extract(
            partial(_Archive, self._settings),
            out,
            where=self._settings["url"],
            full=full,
            state=state,
            known_file=known,
            progress=progress,
        )

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the server says of its patients, as (kind, value): for the hospital's own list, which never leaves."""
        return self._reader.identifiers(partial(_Archive, self._settings))


class _Session:
    """What dicomweb-client takes for a session of `requests`: one request, once, by the toolkit's web client."""

    def __init__(self, client: Web) -> None:
        self._web = client
        self._answer = threading.local()

    @property
    def warned(self) -> bool:
        """Whether the last answer in this thread said that there are more results (PS3.18, 8.3.4.4)."""
        return bool(getattr(self._answer, "warned", False))

    def get(self, url: str, headers: Mapping[str, str], **_: Any) -> "Response":
        from requests import Response

        kept = {name: value for name, value in headers.items() if name.lower() == "accept"}
        came = self._web.ask("GET", url, headers=kept, ok=(200, 204, 206))
        answer = Response()
        answer.status_code = came.status_code
        answer.raw = io.BytesIO(came.content)
        self._answer.warned = came.status_code == 206 or "299" in came.headers.get("Warning", "")
        return answer


class _Archive:
    def __init__(self, settings: Mapping[str, Any]) -> None:
        from dicomweb_client import DICOMwebClient

        logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL + 1)  # it tells addresses, with UIDs
        self._web = Web(settings, signer=sign_in.signer(settings))
        self._session = _Session(self._web)
        session: Any = self._session
        # UIDs are checked before they get into an address; real ones break the rules of the standard
        self._client = DICOMwebClient(self._web.base, session=session, permissive_uid=True)
        self._client.set_http_retry_params(retry=False, max_attempts=1)

    def studies(self, window: Window, patient: str | None, keywords: Iterable[str]) -> tuple[list[Header], bool]:
        asked = {"StudyDate": window.dates, "StudyTime": window.times, "PatientID": patient}
        filters = {name: value for name, value in asked.items() if value}
        search = partial(self._client.search_for_studies, fields=list(keywords), search_filters=filters or None)
        answers = self._ask("studies", search)
        wanted = archive.wanted_of(keywords)
        return [header_of_json(one, wanted) for one in answers], self._session.warned

    def fetch(self, study: str) -> Callable[[Wanted], Iterator[Answer]]:
        try:
            documents = self._documents(study)
        except Refused as error:
            raise StudyLost("X-PACS-GONE" if error.status in _GONE else "Q-PACS-REFUSED") from None
        except PalmaresError as error:
            if error.code not in ("E-FHIR-01", "E-FHIR-04") or not self._answers():
                raise
            raise StudyLost("Q-PACS-REFUSED") from None
        return partial(_answers, documents)

    def _documents(self, study: str) -> list[dict[str, Any]]:
        """The metadata of every instance: series by series, which keeps each answer small, where the server lists them all."""
        listed = self._ask("series", partial(self._client.search_for_series, study, limit=_LIST))
        series = list(dict.fromkeys(uid for one in listed if (uid := _uid_of_series(one))))
        if len(listed) >= _LIST or self._session.warned or len(series) < len(listed):
            return self._ask("metadata", partial(self._client.retrieve_study_metadata, study))
        found = []
        for uid in series:
            found += self._ask("metadata", partial(self._client.retrieve_series_metadata, study, uid))
        return found

    def _ask(self, what: str, question: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        def once() -> list[dict[str, Any]]:
            try:
                answers = question()
            except ValueError:  # requests' own, of JSON
                raise Again("the answer was cut off or is no JSON") from None
            return [one for one in answers if isinstance(one, dict)] if isinstance(answers, list) else []

        return self._web.patiently(f"{self._web.base}/{what}", once)

    def _answers(self) -> bool:
        """Whether the server answers at all."""
        try:
            self._web.ask("GET", f"{self._web.base}/studies?{urlencode({'limit': 1})}", ok=(200, 204, 206))
        except (Again, PalmaresError):
            return False
        return True

    def close(self) -> None:
        self._web.close()


def _answers(documents: list[dict[str, Any]], wanted: Wanted) -> Iterator[Answer]:
    for one in documents:
        yield Answer(header_of_json(one, wanted), partial(_dataset, one))


def _dataset(document: dict[str, Any]) -> "Dataset | None":
    """All of an instance, its bulk data left where they are."""
    import pydicom

    with pydicom.config.disable_value_validation():
        try:
            return pydicom.Dataset.from_json(document, bulk_data_uri_handler=lambda *_: None)
        except Exception:  # whatever a broken document makes pydicom raise; the report counts as damaged
            return None


def _uid_of_series(document: Mapping[str, Any]) -> str:
    element = document.get("0020000E")
    values = element.get("Value") if isinstance(element, dict) else None
    uid = values[0] if isinstance(values, list) and values else ""
    return uid if isinstance(uid, str) and archive.is_plain(uid) else ""
