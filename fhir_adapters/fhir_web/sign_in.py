"""Signing in to a FHIR server: a password, a token, OAuth2 client credentials, or SMART backend services (a signed JWT).

Rules: RFC 6749 section 4.4 (client credentials), RFC 7523 (JWT as a client's assertion), HL7 SMART App Launch 2 "Backend Services"
(RS384 or ES384, at most five minutes, a fresh jti). Secrets come from a connection (connections.py), never from a site's TOML.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from fhir_adapters.base import Setting
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.connections import Connection, connection
from fhir_adapters.fhir_web.web import Again, Headers, Refused, Web

WAYS = ("none", "basic", "bearer", "client-credentials", "smart-backend")
SETTINGS: Mapping[str, Setting] = {
    "auth": Setting(str, f"how to sign in: {', '.join(WAYS)}", "none"),
    "connection": Setting(str, "the Airflow Connection (AIRFLOW_CONN_<NAME>) that holds the credentials", ""),
    "token_url": Setting(str, "the token endpoint; default: as the server's .well-known/smart-configuration says", ""),
    "scope": Setting(str, "OAuth2 scope; default: read access to the system's records, in the server's version", ""),
}
_LIFE = 240  # seconds that an assertion holds; SMART allows five minutes
_EARLY = 60  # seconds before its end that a token is renewed
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def signer(settings: Mapping[str, Any]) -> Callable[[Web], Headers] | None:
    """What signs the requests of a `[[source]]`; None where the server asks for nothing.

    Raises E-SRC-02 (no such way), E-FHIR-10 (no such connection).
    """
    way = settings.get("auth") or "none"
    if way not in WAYS:
        raise PalmaresError("E-SRC-02", "auth", detail=f"it is none of {', '.join(WAYS)}")
    if way == "none":
        return None
    held = connection(settings.get("connection") or "")
    if way == "basic":
        text = base64.b64encode(f"{held.login}:{held.secret()}".encode()).decode()
        return lambda _: _Fixed(f"Basic {text}")
    if way == "bearer":
        token = held.secret()
        return lambda _: _Fixed(f"Bearer {token}")
    if not held.login:
        raise PalmaresError("E-FHIR-10", held.name, detail="it has no login, which is the client's id")
    if way == "client-credentials":
        held.secret()
        return lambda web: _Token(web, held, settings, None)
    key = _SigningKey(held)
    return lambda web: _Token(web, held, settings, key)


class _Fixed:
    """A header that does not change."""

    def __init__(self, value: str) -> None:
        self._value = value

    def headers(self) -> dict[str, str]:
        return {"Authorization": self._value}

    def renew(self) -> bool:
        return False


class _SigningKey:
    """A private key as PEM or JWK, and the algorithm that goes with it."""

    def __init__(self, held: Connection) -> None:
        import jwt
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        text = held.private_key().strip()
        self.key_id = str(held.extra.get("key_id") or "")
        wrong = PalmaresError(
            "E-FHIR-10", held.name, detail="its private key is neither PEM nor a JWK of RSA or EC P-384"
        )
        self._key: Any
        try:
            if text.startswith("{"):
                document = json.loads(text)
                if "keys" in document:  # a key set: the first that signs
                    document = next(one for one in document["keys"] if "d" in one)
                algorithm = {"RSA": "RS384", "EC": "ES384"}[document["kty"]]
                self._key = jwt.PyJWK(document, algorithm=algorithm).key
                self.key_id = self.key_id or str(document.get("kid") or "")
            else:
                self._key = load_pem_private_key(text.encode(), password=None)
        except (ValueError, KeyError, TypeError, StopIteration, AttributeError, jwt.PyJWTError):
            raise wrong from None
        if isinstance(self._key, rsa.RSAPrivateKey):
            self.algorithm = "RS384"
        elif isinstance(self._key, ec.EllipticCurvePrivateKey) and self._key.curve.name == "secp384r1":
            self.algorithm = "ES384"
        else:
            raise wrong

    def assertion(self, client: str, audience: str, now: float) -> str:
        """A signed statement of who asks, good for a few minutes and one use."""
        import jwt

        claims = {
            "iss": client,
            "sub": client,
            "aud": audience,
            "exp": int(now) + _LIFE,
            "iat": int(now),
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self._key, self.algorithm, headers={"kid": self.key_id} if self.key_id else {})


class _Token:
    """An access token, fetched when it is needed and again before it ends or after a refusal."""

    def __init__(self, web: Web, held: Connection, settings: Mapping[str, Any], key: _SigningKey | None) -> None:
        self._web = web
        self._held = held
        self._key = key
        self._url: str = settings.get("token_url") or ""
        self._scope: str = settings.get("scope") or ""
        self._in_body = False  # a client's secret goes into the header, or the body where the server wants it there
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def headers(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._fetch()
            return {"Authorization": f"Bearer {self._token}"}

    def renew(self) -> bool:
        with self._lock:
            self._until = 0.0
        return True

    def _fetch(self) -> None:
        url = self._endpoint()
        document = self._web.patiently(url, lambda: self._asked(url))
        token, lasts = document.get("access_token"), document.get("expires_in")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise PalmaresError("E-FHIR-02", "token endpoint", detail="its answer holds no token")
        if str(document.get("token_type", "bearer")).lower() != "bearer":
            raise PalmaresError("E-FHIR-02", "token endpoint", detail="its token is no bearer token")
        seconds = float(lasts) if isinstance(lasts, int | float) and not isinstance(lasts, bool) else 300.0
        self._token = token
        self._until = time.monotonic() + max(seconds - _EARLY, seconds / 2)

    def _asked(self, url: str) -> dict[str, Any]:
        form = {"grant_type": "client_credentials", "scope": self._scope}
        headers = {"Accept": "application/json"}
        if self._key is not None:
            form |= {
                "client_assertion_type": _ASSERTION,
                "client_assertion": self._key.assertion(self._held.login, url, self._web.now().timestamp()),
            }
        elif self._in_body:
            form |= {"client_id": self._held.login, "client_secret": self._held.secret()}
        else:
            pair = f"{quote(self._held.login, safe='')}:{quote(self._held.secret(), safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        if not self._scope:
            del form["scope"]
        try:
            response = self._web.ask("POST", url, headers=headers, ok=(200, 201, 400, 401), signed=False, data=form)
        except Refused as error:
            raise PalmaresError("E-FHIR-02", "token endpoint", detail=f"status {error.status}") from None
        if response.status_code in (400, 401):
            if self._key is None and not self._in_body:
                self._in_body = True
                return self._asked(url)
            raise PalmaresError(
                "E-FHIR-02", "token endpoint", detail=f"status {response.status_code}{_said(response.content)}"
            )
        try:
            document = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise Again("the token's answer was cut off") from None
        return document if isinstance(document, dict) else {}

    def _endpoint(self) -> str:
        """Where tokens are had; asked of the server once where the settings do not say. Raises E-FHIR-02, E-FHIR-12."""
        if not self._url or not self._scope:
            discovered = self._discover()
            self._url = self._url or str(discovered.get("token_endpoint") or "")
            capabilities = discovered.get("capabilities")
            version2 = isinstance(capabilities, list) and "permission-v2" in capabilities
            self._scope = self._scope or ("system/*.rs" if version2 else "system/*.read")
        if not self._url:
            raise PalmaresError(
                "E-FHIR-02", "token endpoint", detail="neither token_url nor the server says where it is"
            )
        return self._web.checked(self._url)

    def _discover(self) -> dict[str, Any]:
        url = f"{self._web.base}/.well-known/smart-configuration"
        try:
            response = self._web.patiently(
                url, lambda: self._web.ask("GET", url, headers={"Accept": "application/json"}, signed=False)
            )
            document = orjson.loads(response.content)
        except (Refused, orjson.JSONDecodeError):
            return {}  # a server without SMART: the settings must say it all
        return document if isinstance(document, dict) else {}


_OAUTH = frozenset(
    [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ]
)


def _said(body: bytes) -> str:
    """The error word of a token endpoint, when it is one of RFC 6749's."""
    try:
        word = orjson.loads(body).get("error")
    except (orjson.JSONDecodeError, AttributeError):
        return ""
    return f", {word}" if isinstance(word, str) and word in _OAUTH else ""
