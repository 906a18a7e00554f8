"""The client of a FHIR server: patient, polite, and careful with what it tells and to whom.

- What may heal (no connection, a body cut off, 408, 425, 429, 5xx) is tried again: after `Retry-After` where the server says
  it, else after growing pauses. A server that asks for a pause is left alone by all threads.
- Credentials go to the server's own origin only. A link to another host is refused, a redirect too.
- Errors name a type and the names of parameters; never a query's value, an id or a server's text.
"""

import email.utils
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx
import orjson
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay

from fhir_adapters.base import Setting
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.issues import issues, words
from fhir_adapters.landing.rules import resource_types

SETTINGS: Mapping[str, Setting] = {
    "url": Setting(str, "the server's FHIR base, e.g. https://fhir.example.org/r4", required=True),
    "link_base": Setting(str, "the base that the server's own links begin with, where a gateway hides it", ""),
    "ca_file": Setting(Path, "the hospital's certificate authority, a PEM file"),
    "allow_http": Setting(
        bool, "credentials and records over http to another machine: only inside a closed network", False
    ),
    "parallel": Setting(int, "requests at a time", 4),
    "tries": Setting(int, "times that a request is tried", 8),
    "patience_minutes": Setting(int, "how long one request is tried again, the server's own pauses included", 30),
    "timeout_seconds": Setting(int, "how long the server may be silent", 120),
}
JSON = "application/fhir+json"
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_WORDS = frozenset({"metadata", "$export", "_history", "_search"})

Result = TypeVar("Result")


class Refused(PalmaresError):
    """The server refused a request (4xx); `status` tells how."""

    status = 0


class Unanswered(PalmaresError):
    """The server did not serve, however often it was asked; `status`: its last 5xx or the like, None when it said nothing."""

    status: int | None = None


class Again(Exception):
    """Something that may heal; `after`: seconds that the server asked for, None when it did not say; `why` without values."""

    def __init__(self, why: str, after: float | None = None, status: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.after = after
        self.status = status


class Stopped(Exception):
    """The run was stopped: no thread waits or asks any more."""


class Headers(Protocol):
    """What signs requests; see sign_in.py."""

    def headers(self) -> dict[str, str]: ...
    def renew(self) -> bool:
        """Get new credentials after a refusal; False when there is nothing to renew."""
        ...


class Answer(NamedTuple):
    """A JSON answer: the document, and the headers."""

    document: Any
    headers: httpx.Headers
    status: int


class Meter:
    """Where the time went, over all threads: seconds spent waiting for the server (pauses included), requests, bytes, retries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waited = 0.0
        self.requests = 0
        self.retries = 0
        self.bytes = 0

    def add(self, *, waited: float = 0.0, requests: int = 0, retries: int = 0, bytes_: int = 0) -> None:
        with self._lock:
            self.waited += waited
            self.requests += requests
            self.retries += retries
            self.bytes += bytes_

    def counts(self) -> dict[str, int]:
        return {"requests": self.requests, "retries": self.retries, "bytes": self.bytes}


class _Quiet(logging.Filter):
    """httpx tells whole addresses at level INFO; query values do not belong in a log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING


_QUIET = _Quiet()


def silence() -> None:
    """Keep addresses out of the logs, whatever level somebody sets. Called with every client."""
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "httpcore.proxy", "httpcore.http2"):
        logger = logging.getLogger(name)
        if _QUIET not in logger.filters:
            logger.addFilter(_QUIET)


class Web:
    """Requests to one FHIR server. For threads."""

    def __init__(self, settings: Mapping[str, Any], *, signer: "Callable[[Web], Headers] | None" = None) -> None:
        """Raises E-SRC-02 (an address or number that does not fit), E-FHIR-12 (http to another machine)."""
        self.base = check(settings)
        self._link_base = str(settings["link_base"]).rstrip("/")
        self._tries: int = settings["tries"]
        self._patience = 60.0 * settings["patience_minutes"]
        self._allow_http: bool = settings["allow_http"]
        parallel: int = settings["parallel"]
        silence()
        self._client = httpx.Client(
            timeout=httpx.Timeout(settings["timeout_seconds"], connect=20, pool=None),
            limits=httpx.Limits(max_connections=2 * parallel, max_keepalive_connections=2 * parallel),
            verify=_trust(settings["ca_file"]),
            follow_redirects=False,
            headers={"User-Agent": "palmares", "Accept": JSON},
        )
        self.meter = Meter()
        self.ahead: float | None = None  # seconds that the server's clock is ahead of ours, as last seen
        self._not_before = 0.0
        self._stopped = threading.Event()
        self._signer: Headers | None = signer(self) if signer else None

    def close(self) -> None:
        self._client.close()

    def stop(self) -> None:
        """End all waiting and asking, in whatever thread: somebody wants the run to end."""
        self._stopped.set()

    # --------------------------------------------------------------------------------------------- addresses

    def own(self, url: str, beside: str | None = None) -> str:
        """A link of the server as the address to use. Raises E-FHIR-03 when it leads to another host."""
        try:
            full = urljoin(beside or f"{self.base}/", url)
            if self._link_base and (
                full == self._link_base or full.startswith((f"{self._link_base}/", f"{self._link_base}?"))
            ):
                full = self.base + full[len(self._link_base) :]
            foreign = origin(full) != origin(self.base) or bool(httpx.URL(full).userinfo)
        except (ValueError, TypeError, httpx.InvalidURL):
            raise PalmaresError("E-FHIR-04", "link", detail="it is no address") from None
        if foreign:
            raise PalmaresError("E-FHIR-03", self.shown(full))
        return full

    def is_own(self, url: str) -> bool:
        """Whether an address is on the server's own origin."""
        return origin(url) == origin(self.base)

    def checked(self, url: str) -> str:
        """An address elsewhere that may be asked without credentials: https, or http where it is allowed. Raises E-FHIR-12."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and (self._allow_http or parts.hostname in _LOCAL)):
            raise PalmaresError("E-FHIR-12", "link")
        return url

    def shown(self, url: str) -> str:
        """An address as a message may show it: resource types and parameter names, no values, no ids."""
        parts = urlsplit(url)
        path = parts.path.removeprefix(urlsplit(self.base).path) if self.is_own(url) else parts.path
        kept = [part if part in _WORDS or part in resource_types() else "…" for part in path.split("/") if part]
        names = [
            name if name.lstrip("_").replace("-", "").isalpha() else "…" for name, _ in parse_qsl(parts.query, True)
        ]
        where = "" if self.is_own(url) else "another host: "
        return where + ("/".join(kept) or "the server") + ("?" + "&".join(dict.fromkeys(names)) if names else "")

    # ---------------------------------------------------------------------------------------------- requests

    def json(self, url: str, *, headers: Mapping[str, str] | None = None, ok: tuple[int, ...] = (200,)) -> Answer:
        """GET a JSON document. Raises Refused (E-FHIR-07), E-FHIR-01, -02, -03, -04, -11."""

        def work() -> Answer:
            response = self.ask("GET", url, headers=headers, ok=ok)
            if not response.content and response.status_code != 200:
                return Answer(None, response.headers, response.status_code)
            text = response.content.removeprefix(b"\xef\xbb\xbf")
            try:
                document = orjson.loads(text)
            except orjson.JSONDecodeError:
                if text.lstrip()[:1] in (b"{", b"["):
                    raise Again("the answer was cut off") from None
                raise PalmaresError("E-FHIR-04", self.shown(url), detail="the answer is no JSON") from None
            return Answer(document, response.headers, response.status_code)

        return self.patiently(url, work)

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        ok: tuple[int, ...] = (200,),
        signed: bool = True,
        data: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request, once, with its body read. Raises Again for what may heal; see `patiently`."""
        with self.streamed(method, url, headers=headers, ok=ok, signed=signed, data=data) as response:
            started = time.monotonic()
            with healing():
                body = response.read()
            self.meter.add(waited=time.monotonic() - started, bytes_=len(body))
            return response

    @contextmanager
    def streamed(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        ok: tuple[int, ...] = (200,),
        signed: bool = True,
        data: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """One request, once, its body not yet read. Raises Again for what may heal; see `patiently`."""
        renewed = False
        while True:
            self._pause()
            signature = self._signer.headers() if signed and self._signer else {}
            request = self._client.build_request(method, url, headers={**(headers or {}), **signature}, data=data)
            started = time.monotonic()
            with healing():
                response = self._client.send(request, stream=True)
            self.meter.add(waited=time.monotonic() - started, requests=1)
            try:
                self._see_clock(response)
                if response.status_code == 401 and signed and self._signer and not renewed and self._signer.renew():
                    renewed = True
                    continue
                if response.status_code not in ok:
                    self._refuse(url, response)
                yield response
                return
            finally:
                response.close()

    def patiently(self, url: str, work: Callable[[], Result]) -> Result:
        """Do `work` again as long as it raises Again and there is patience. Raises E-FHIR-01 or E-FHIR-11 at the end.

        A pause that the server asked for is no failed try: it bounds its clients that way, and only patience ends that.
        """
        failed = 0
        too_long = stop_before_delay(self._patience)

        def enough(state: RetryCallState) -> bool:
            nonlocal failed
            error = state.outcome.exception() if state.outcome else None
            failed += not (isinstance(error, Again) and error.after is not None)
            return failed >= self._tries or too_long(state)

        retrying = Retrying(
            retry=retry_if_exception_type(Again),
            wait=_wait,
            stop=enough,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(work)
        except Again as error:
            code = "E-FHIR-11" if error.after is not None and error.after > self._patience else "E-FHIR-01"
            unanswered = Unanswered(code, self.shown(url), detail=error.why)
            unanswered.status = error.status
            raise unanswered from None

    def _sleep(self, seconds: float) -> None:
        self.meter.add(retries=1)
        self.rest(seconds)

    def rest(self, seconds: float) -> None:
        """Wait because the server needs time. Raises Stopped."""
        self.meter.add(waited=seconds)
        if self._stopped.wait(seconds):
            raise Stopped

    def metered(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks of a body, the time until each came counted as waiting."""
        while True:
            started = time.monotonic()
            block = next(blocks, None)
            self.meter.add(waited=time.monotonic() - started, bytes_=len(block or b""))
            if block is None:
                return
            yield block

    def _pause(self) -> None:
        """Leave the server alone as long as it asked for, whichever thread it told."""
        rest = self._not_before - time.monotonic()
        if rest > 0 or self._stopped.is_set():
            self.rest(max(rest, 0.0))

    def _see_clock(self, response: httpx.Response) -> None:
        at = http_date(response.headers.get("Date"))
        if at is not None:
            age = response.headers.get("Age", "")  # of an answer that a cache kept
            self.ahead = at.timestamp() + (float(age) if age.isdecimal() and len(age) < 10 else 0.0) - time.time()

    def now(self) -> datetime:
        """The server's clock, as far as its answers tell."""
        return datetime.fromtimestamp(time.time() + (self.ahead or 0.0), UTC)

    def mark(self) -> datetime:
        """From when on the next run has to look: the server's clock; where it tells none, ours, a day back."""
        return self.now() if self.ahead is not None else self.now() - timedelta(days=1)

    def _refuse(self, url: str, response: httpx.Response) -> None:
        status = response.status_code
        if status in _PASSING:
            after = retry_after(response.headers)
            if after is not None and status in (429, 503):
                self._not_before = max(self._not_before, time.monotonic() + min(after, self._patience))
            raise Again(f"status {status}", after, status)
        if status in (401, 403):
            raise PalmaresError("E-FHIR-02", self.shown(url), detail=f"status {status}")
        if 300 <= status < 400:
            raise PalmaresError("E-FHIR-03", self.shown(url), detail=f"it redirects (status {status})")
        said = ""
        with healing():
            body = response.read()
        with suppress(orjson.JSONDecodeError):  # where the answer is no OperationOutcome, the status tells all
            said = words(issues(orjson.loads(body)))
        refused = Refused("E-FHIR-07", self.shown(url), detail=f"status {status}" + (f", {said}" if said else ""))
        refused.status = status
        raise refused


@contextmanager
def healing() -> Iterator[None]:
    """What the network does to a request, as Again: its kind, not its text, which holds addresses."""
    try:
        yield
    except httpx.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise PalmaresError("E-FHIR-13", "the server") from None
        raise Again(type(error).__name__) from None
    except httpx.DecodingError:
        raise Again("the compressed answer was cut off") from None
    except httpx.HTTPError as error:
        raise Again(type(error).__name__) from None


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    pause: float = min(0.5 * 2 ** (state.attempt_number - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
    after = error.after if isinstance(error, Again) else None
    return pause if after is None else after + random.uniform(0, 0.1)  # noqa: S311


def http_date(text: str | None) -> datetime | None:
    """A date of an HTTP header; None when it is none."""
    try:
        at = email.utils.parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, given as seconds or as a date (held against the answer's own `Date`)."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    at = http_date(text)
    if at is None:
        return None
    now = http_date(headers.get("Date")) or datetime.now(UTC)
    return max(0.0, (at - now).total_seconds())


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address, in lower case; userinfo and paths do not count."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", "", 0
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), port or {"https": 443, "http": 80}.get(scheme, 0)


def check(settings: Mapping[str, Any]) -> str:
    """The base of the settings. Raises E-SRC-02 (an address or a number does not fit), E-FHIR-12 (http to another machine)."""
    url: str = settings["url"]
    scheme, host, _ = origin(url)
    parts = urlsplit(url)
    if scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise PalmaresError("E-SRC-02", "url", detail="it is no http address without query")
    if parts.username or parts.password:
        raise PalmaresError("E-SRC-02", "url", detail="it holds a user or a password; these belong into the connection")
    if scheme == "http" and host not in _LOCAL and not settings["allow_http"]:
        raise PalmaresError("E-FHIR-12", "url")
    for name, most in (("parallel", 64), ("tries", 100), ("patience_minutes", 1440), ("timeout_seconds", 3600)):
        if not 1 <= settings[name] <= most:
            raise PalmaresError("E-SRC-02", name, detail=f"it is none of 1 to {most}")
    return url.rstrip("/")


@cache
def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError):
            raise PalmaresError("E-SRC-02", "ca_file", detail="it is no PEM file of certificates") from None
    return context
