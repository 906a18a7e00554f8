"""A proxy in front of a FHIR server that does what networks and servers do: refuse, throttle, drop, cut off, forget, mislead.

with Faults(server.port) as proxy:
    proxy.add(r"/Observation", status=429, headers={"Retry-After": "1"}, times=2)
    …read from proxy.url…
    assert proxy.asked(r"/Observation") == 5
"""

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass
class Fault:
    """What happens to requests that match: the first `after` pass, the next `times` are hit."""

    pattern: re.Pattern[str]
    times: int = 1
    after: int = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop: float | None = None  # close the connection after this share of the body; 0.0 before the first byte
    cut: float | None = None  # send this share of the body, as if it were all
    delay: float = 0.0
    edit: Callable[[Any], Any] | None = None  # of the JSON document
    edit_bytes: Callable[[bytes], bytes] | None = None  # of the body as it comes over the wire
    hit: int = 0
    seen: int = 0


class Faults:
    """The proxy. `url` is the FHIR base to read from."""

    def __init__(self, upstream: int, *, certificate: Path | None = None) -> None:
        """`certificate`: a PEM file of key and certificate of localhost, for https."""
        self._upstream = upstream
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.hidden_headers: set[str] = set()  # of the server's answers, in lower case
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path with query, headers
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                proxy.serve(self)

            do_GET = do_POST = do_DELETE = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/fhir"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self.port}/fhir"

    def add(self, pattern: str, **what: Any) -> Fault:
        fault = Fault(re.compile(pattern), **what)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def asked(self, pattern: str, method: str = "GET") -> int:
        """How many requests matched."""
        with self._lock:
            return sum(1 for verb, path, _ in self.requests if verb == method and re.search(pattern, path))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.pattern.search(path):
                    fault.seen += 1
                    if fault.seen > fault.after and fault.hit < fault.times:
                        fault.hit += 1
                        return fault
        return None

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Pass one request on, with the fault that is due."""
        with self._lock:
            self.requests.append((handler.command, handler.path, dict(handler.headers)))
        sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self._fault(handler.path)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.drop == 0.0:
                return self._hang_up(handler)
            if fault.status is not None:
                return self._answer(handler, fault.status, fault.headers, fault.body)
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        upstream.request(handler.command, handler.path, body=sent, headers=dict(handler.headers))
        came = upstream.getresponse()
        body = came.read()
        headers = {name: value for name, value in came.getheaders() if name.lower() not in _HOP | self.hidden_headers}
        upstream.close()
        if fault is not None:
            headers |= fault.headers
            if fault.edit is not None:
                body = json.dumps(fault.edit(json.loads(body))).encode()
            if fault.edit_bytes is not None:
                body = fault.edit_bytes(body)
            if fault.cut is not None:
                body = body[: int(len(body) * fault.cut)]
            if fault.drop is not None:
                handler.send_response(came.status)
                for name, value in headers.items():
                    handler.send_header(name, value)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body[: int(len(body) * fault.drop)])
                return self._hang_up(handler)
        return self._answer(handler, came.status, headers, body)

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.send_response_only(status)  # with the server's own Date, or none
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    @staticmethod
    def _hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)


_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
