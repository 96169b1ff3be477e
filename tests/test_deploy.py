"""The compose file: what it starts is there. Docker itself is no part of the tests."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import Any

import pytest
from commands import invoke
from conftest import ROOT

from search.setup.storage_url import VARIABLE

yaml = pytest.importorskip("yaml", reason="PyYAML, which Ray brings, is not installed")
COMPOSE = ROOT / "deploy" / "compose.yaml"


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]


def test_all_services_but_the_database_are_one_image_that_reaches_it(services):
    assert services.keys() == {"database", "dashboard", "head", "worker"}
    database = services.pop("database")
    user, name = database["environment"]["POSTGRES_USER"], database["environment"]["POSTGRES_DB"]
    for service in services.values():
        assert service["image"] == "bottleneck-search"
        assert service["depends_on"]["database"] == {"condition": "service_healthy"}
        assert not any(secret in f"{service['command']}" for secret in ("PASSWORD", "TOKEN", VARIABLE))  # ps shows it
    dashboard = services.pop("dashboard")
    assert dashboard["environment"].keys() == {"PGPASSWORD"}
    assert dashboard["command"][2].count(f"postgresql://{user}@database/{name}") == 2
    for service in services.values():
        assert re.fullmatch(
            rf"postgresql://{user}:\${{POSTGRES_PASSWORD:\?.+}}@database/{name}", service["environment"][VARIABLE]
        )
        assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    assert "healthcheck" in database


def test_the_image_has_what_the_services_start(services):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    docker = (COMPOSE.parent / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"FROM python:3\.11", docker)
    (extras,) = re.findall(r"pip install --no-cache-dir '\.\[([\w,]+)\]'", docker)
    brought = {extra: " ".join(project["optional-dependencies"][extra]) for extra in extras.split(",")}
    assert " && exec optuna-dashboard " in services["dashboard"]["command"][2]
    assert "optuna-dashboard" in brought["dashboard"]
    for name in ("head", "worker"):
        assert services[name]["command"][:2] == ["ray", "start"]
    assert {"ray", "psycopg"} <= set(re.findall(r"[\w-]+", brought["cluster"]))
    for folder in re.findall(r"^COPY (\w+) \w+$", docker, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_command_at_its_head_is_one(services, tmp_path):
    """All but Ray's own part: that there is no Ray to go to is said, and not that an option is wrong."""
    comment = "\n".join(
        line[1:].strip() for line in COMPOSE.read_text(encoding="utf-8").splitlines() if line[:1] == "#"
    )
    (command,) = re.findall(r"exec head \\\n(python(?:.*\\\n)*.*)", comment)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:4] == ["python", "-m", "search.cluster", "run"]
    words[words.index("--features") + 1] = str(tmp_path / "no.h5")
    ended = invoke("search.cluster", *words[3:])
    assert ended.status == 2
    assert "no.h5: expected a feature store" in ended.err
