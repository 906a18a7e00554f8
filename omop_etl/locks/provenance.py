"""What a lock is made of besides its inputs: mappings, code, environment; each as a hash, and what differs between two."""

import hashlib
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import fhir_adapters
import omop_etl
from fhir_adapters.knowledge import mappings_folder
from omop_etl import __version__


def provenance() -> dict[str, Any]:
    """Mappings, code and environment of this installation: hashes of files by their path, versions of packages by name."""
    mappings = _hashes(mappings_folder(), "*")
    code = {
        f"{package.__name__}/{path}": sha256
        for package in (fhir_adapters, omop_etl)
        for path, sha256 in _hashes(Path(str(package.__file__)).parent, "*.py").items()
    }
    packages = {
        str(one.metadata["Name"]).lower().replace("_", "-"): one.version
        for one in metadata.distributions()
        if one.metadata["Name"]
    }
    environment = {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "packages": dict(sorted(packages.items())),
    }
    return {
        "mappings": {"sha256": _together(mappings), "files": mappings},
        "code": {"version": __version__, "sha256": _together(code), "files": code},
        "environment": {"sha256": _together(_flat(environment)), **environment},
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two provenances, in words: files of mappings and code, versions of packages."""
    found = []
    for part in ("mappings", "code"):
        before, after = then[part]["files"], now[part]["files"]
        found += [
            f"{part}: {path}" for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)
        ]
    before, after = _flat(then["environment"]), _flat(now["environment"])
    found += [
        f"environment: {name} {before.get(name, 'none')} → {after.get(name, 'none')}"
        for name in sorted(before.keys() | after.keys())
        if name != "sha256" and before.get(name) != after.get(name)
    ]
    return found


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    plain = {key: str(value) for key, value in environment.items() if key != "packages"}
    return plain | dict(environment["packages"])


def _hashes(folder: Path, pattern: str) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _together(parts: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name}\0{text}\n" for name, text in sorted(parts.items())).encode()).hexdigest()
