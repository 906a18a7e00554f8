"""The generated files of the project: written anew by `make docs`, held against what is committed by `make generated`.

Each provider is a function `generated() -> dict[Path, str]`: paths relative to the repository's root, and their text.
"""

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROVIDERS = (
    "fhir_adapters.views.facts",
    "fhir_adapters.left_out_page",
    "omop_etl.conformance.requirements",
    "omop_etl.conformance.lineage",
    "omop_etl.derive.documents",
    "omop_etl.gates.documents",
    "omop_etl.synthetic.not_carried_page",
)


def generated() -> dict[Path, str]:
    """Every generated file's path and the text that it should hold."""
    files: dict[Path, str] = {}
    for name in PROVIDERS:
        files |= importlib.import_module(name).generated()
    return files


def main() -> int:
    """Write the files, or with --check name those that are stale and return 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    stale = []
    for path, text in sorted(generated().items()):
        target = ROOT / path
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path))
        if not check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{'stale' if check else 'written'}: {name}")
    if check and stale:
        print("Write them anew with: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
