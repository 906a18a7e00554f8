"""What reading HL7 v2 costs.

    python tests/benchmarks/bench_hl7v2.py [PATIENTS]

The messages of one synthetic hospital by the `hl7v2` source, with one process and with all; baseline in the same run: hl7apy's
`parse_message` of some of the same messages, with segments as it groups them and as they come (find_groups=False), which reads and
writes nothing.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from fhir_adapters.base import open_source
from fhir_adapters.hl7v2.framing import spans
from fhir_adapters.processes import processors
from fhir_adapters.pseudonyms import SiteKey
from omop_etl.synthetic import generate

_SAMPLE = 100  # messages that hl7apy alone reads


def main(patients: int) -> None:
    """Print messages a second, and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "run", sites=1, patients=patients, dirty=False, formats="hl7v2")
        messages = folder / "run" / "hospitals" / "site01" / "messages"
        texts = [
            path.read_bytes()[span.start : span.end].strip(b"\x0b\x1c\r").decode("cp1252")
            for path in sorted(messages.iterdir())
            for span in spans(path)
        ]
        texts = texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]
        plain = {}
        for groups in (True, False):
            start = time.perf_counter()
            for text in texts:
                parse_message(text, find_groups=groups, validation_level=VALIDATION_LEVEL.TOLERANT)
            plain[groups] = len(texts) / (time.perf_counter() - start)
        print(f"hl7apy alone: {plain[True]:,.0f} messages/s in groups, {plain[False]:,.0f} as they come")
        described = {"kind": "hl7v2", "path": str(messages), "map": str(folder / "run/sites/maps/site01-hl7v2.toml")}
        for jobs in sorted({1, processors()}):
            source = open_source({**described, "jobs": jobs}, folder=folder, key=SiteKey(b"k" * 32))
            start = time.perf_counter()
            extraction = source.extract(folder / f"out-{jobs}")
            rate = extraction.more["messages"]["read"] / (time.perf_counter() - start)
            print(f"source, {jobs} processes: {rate:,.0f} messages/s; {rate / plain[False]:.0f} times hl7apy alone")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600)
