"""What a worker does: messages of a file → what they tell. It imports no more than it needs, for every process begins with it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fhir_adapters.hl7v2.charsets import decoded
from fhir_adapters.hl7v2.framing import Span
from fhir_adapters.hl7v2.message import NoMessage
from fhir_adapters.hl7v2.reading import Refused, Settings, Told, Wrong, read
from fhir_adapters.shown_names import shown_name


@dataclass(frozen=True)
class Task:
    """Messages of one file, read by one worker."""

    path: Path
    name: str
    spans: tuple[Span, ...]
    new: bool = True  # of a file that was not read before: what it tells is written


@dataclass
class Result:
    """What became of one message. `made`: finished resources as JSON, by type."""

    item: str
    new: bool
    reason: str = ""
    digest: bytes = b""
    told: tuple[Told, ...] = ()
    made: tuple[tuple[str, str], ...] = ()
    wrongs: tuple[Wrong, ...] = ()
    master: bool = False
    touched: str = ""


@dataclass(frozen=True)
class Reader:
    """Reads the messages of a task; goes to the workers as it is."""

    settings: Settings
    encoding: str

    def keys(self) -> list[str]:
        """What tells the keys apart without telling anything of them."""
        linkage = self.settings.linkage
        return [self.settings.key.fingerprint, linkage.fingerprint if linkage else ""]

    def __call__(self, task: Task) -> list[Result]:
        with task.path.open("rb") as file:
            return [self._result(file, task, span) for span in task.spans]

    def _result(self, file: Any, task: Task, span: Span) -> Result:
        item = _item(task, span)
        if span.reason:
            return Result(item, task.new, span.reason)
        file.seek(span.start)
        content: bytes = file.read(span.end - span.start)
        digest = hashlib.md5(content.strip(b"\x0b\x1c\r\n \t"), usedforsecurity=False).digest()
        try:
            reading = read(decoded(content, self.encoding), self.settings)
        except NoMessage:
            return Result(item, task.new, "Q-HL7-HEADER", digest)
        except Refused as refused:
            return Result(item, task.new, refused.args[0], digest)
        made = tuple((one["resourceType"], as_text(one)) for one in reading.made) if task.new else ()
        wrongs = tuple(reading.wrongs) if task.new else ()
        master = reading.kind == "ADT"
        return Result(item, task.new, "", digest, tuple(reading.told), made, wrongs, master, reading.touched)


def _item(task: Task, span: Span) -> str:
    """How outcomes name the message."""
    return f"{shown_name(task.name)}:{span.position}"


def as_text(resource: Mapping[str, Any]) -> str:
    """A line of NDJSON."""
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":"))


def read_task(reader: Reader, task: Task) -> list[Result]:
    """A worker's task; a file that went away while it was read is told for each of its messages."""
    try:
        return reader(task)
    except OSError:
        return [Result(_item(task, span), task.new, "Q-HL7-FILE") for span in task.spans]
