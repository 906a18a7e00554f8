"""One run of five hospitals with 300 patients for all tests of this folder."""

import pytest

from omop_etl.synthetic import generate
from tests.synthetic_helpers import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("synthetic") / "out"
    generate(out, sites=5, patients=300, seed=2024, jobs=1)
    return Run(out)
