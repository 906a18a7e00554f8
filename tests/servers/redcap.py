"""A server that speaks the part of REDCap's API that the source asks: REDCap itself needs a licence and does not run here.

It answers POST with form fields as REDCap does: `token`, `content` (metadata, project, record), `records[n]`, `fields[n]`,
`dateRangeBegin`, JSON; an error is `{"error": …}` with status 400 or 403. Records are kept as the API exports them, one dictionary a row,
beside the time of their last change. `faults` are answered first, in their order: a status, "cut" or "page".
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

TOKEN = "0123456789ABCDEF0123456789ABCDEF"


@dataclass
class Redcap:
    """A project: its dictionary, its settings, its rows (record → when it was changed)."""

    metadata: list[dict[str, str]]
    project: dict[str, Any]
    rows: list[dict[str, str]]
    changed: dict[str, str] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, form: dict[str, str]) -> tuple[int, Any]:
        """Status and JSON."""
        if form.get("token") != TOKEN:
            return 403, {"error": "You do not have permissions to use the API"}
        content = form.get("content")
        if content == "metadata":
            return 200, self.metadata
        if content == "project":
            return 200, self.project
        if content == "record":
            return 200, self._records(form)
        return 400, {"error": "The value of the parameter content is not valid"}

    def _records(self, form: dict[str, str]) -> list[dict[str, str]]:
        record = self.metadata[0]["field_name"]
        wanted = {value for name, value in form.items() if re.fullmatch(r"records\[\d+\]", name)}
        fields = {value for name, value in form.items() if re.fullmatch(r"fields\[\d+\]", name)}
        begin = form.get("dateRangeBegin", "")
        answer = []
        for row in self.rows:
            if wanted and row[record] not in wanted:
                continue
            if begin and self.changed.get(row[record], "") < begin:
                continue
            answer.append(
                {
                    name: value
                    for name, value in row.items()
                    if not fields or name.partition("___")[0] in fields or name == record or name.startswith("redcap_")
                }
            )
        return answer


@contextmanager
def serving(project: Redcap) -> Iterator[Redcap]:
    """The project behind a free port of 127.0.0.1, as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            form = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
            project.asked.append(form)
            fault = project.faults.pop(0) if project.faults else None
            status, answer = project.answer(form) if not isinstance(fault, int) else (fault, {})
            body = json.dumps(answer).encode()
            if isinstance(fault, int) or fault == "page":
                body = b"<html>Bad gateway</html>"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a request holds the token."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    project.url = f"http://127.0.0.1:{server.server_address[1]}/api/"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield project
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
