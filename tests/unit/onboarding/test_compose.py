"""What a hospital starts with: every secret has a way in, and none has its place in the repository."""

from pathlib import Path

import yaml

from fhir_adapters.pseudonyms import LinkageKey

COMPOSE = Path(__file__).parents[3] / "docker" / "compose.site.yaml"


def test_the_linkage_key_and_the_connections_come_in() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    service = yaml.safe_load(text)["services"]["airflow"]
    assert LinkageKey.variable in service["environment"]  # without a value: as the shell has it
    (secrets,) = service["env_file"]
    assert secrets == {"path": "${PALMARES_SITE}/secrets.env", "required": False}
    assert "AIRFLOW_CONN_" in text


def test_nothing_of_a_site_stands_in_the_repository() -> None:
    service = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["airflow"]
    assert not any(one.startswith((".", "/")) for one in service["volumes"])
    assert all(one.endswith(":ro") for one in service["volumes"] if one.startswith("${"))
    assert all(one.startswith("127.0.0.1:") for one in service["ports"])
