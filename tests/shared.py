"""Where the data stand that no one here wrote; a test that needs a set that is absent skips and says so."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def needs_shared(name: str) -> pytest.MarkDecorator:
    """A mark that skips the test when `shared/data/<name>` is not there."""
    return pytest.mark.skipif(
        not (SHARED / "data" / name).exists(), reason=f"shared/data/{name} is not beside this checkout"
    )
