"""How to cite a lock: a text that follows from its manifest and holds the manifest's hash."""

import hashlib
import json


def citation(manifest: str) -> str:
    """The text of CITATION.txt, from the text of manifest.json."""
    about = json.loads(manifest)
    sha256 = hashlib.sha256(manifest.encode()).hexdigest()
    sites = about["sites"]
    first, last = min(site["extracted_to"] for site in sites), max(site["extracted_to"] for site in sites)
    return (
        f"{about['title']} ({about['registry']}). Data lock {about['name']}, cut-off {about['cut_off']}; "
        f"{len(sites)} sites, extracted up to {first if first == last else f'{first} to {last}'}. "
        f"Made with palmares {about['code']['version']}.\n"
        f"SHA-256 of the manifest: {sha256}\n"
        f"SHA-256 of code, mappings, vocabulary, environment: {about['code']['sha256'][:16]}, {about['mappings']['sha256'][:16]}, "
        f"{about['vocabulary']['sha256'][:16]}, {about['environment']['sha256'][:16]}\n"
    )
