"""The container files name what exists. They are read here, not built: that takes a container engine."""

import re
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from tests.house.files import ROOT
from tests.house.test_docs import settings_read


def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return parsed


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_the_services_are_the_portal_and_its_database() -> None:
    services = compose()["services"]
    assert set(services) == {"portal", "migrate", "db"}
    assert services["db"]["image"] == "postgres:18"
    assert services["portal"]["build"] == "."


@pytest.mark.parametrize("service", ["portal", "migrate"])
def test_its_environment_is_settings_of_ours(service: str) -> None:
    named = set(compose()["services"][service]["environment"])
    assert named <= settings_read()
    assert {"SECRET_KEY", "PORTAL_URL", "DATABASE_URL"} <= named


def test_no_secret_stands_in_it_and_a_missing_one_is_refused() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in ("SECRET_KEY", "PORTAL_URL", "POSTGRES_PASSWORD", "EMAIL_URL"):
        uses = re.findall(rf"\$\{{{name}(.{{0,2}})", text)
        assert uses
        assert all(use == ":?" for use in uses)


def test_every_volume_and_dependency_is_declared() -> None:
    parsed = compose()
    used = {
        volume.split(":")[0] for each in parsed["services"].values() for volume in each.get("volumes", [])
    }
    assert used == set(parsed["volumes"])
    needed = {name for each in parsed["services"].values() for name in each.get("depends_on", {})}
    assert needed <= set(parsed["services"])


def test_the_port_is_open_on_this_machine_only() -> None:
    assert compose()["services"]["portal"]["ports"] == ["127.0.0.1:8000:8000"]


def test_its_journals_are_on_a_volume() -> None:
    target = compose()["services"]["portal"]["volumes"][0].split(":")[1]
    assert f"USAGE_JOURNAL_DIR={target}" in dockerfile()
    assert f"VOLUME {target}" in dockerfile()


def test_the_commands_it_runs_exist() -> None:
    known = set(get_commands())
    started = [each["command"][0] for each in compose()["services"].values() if "command" in each]
    started += re.findall(r'^CMD \["(\w+)"', dockerfile(), re.MULTILINE)
    started += re.findall(r"manage\.py (\w+)", dockerfile())
    assert "serve" in started
    assert set(started) <= known


def test_the_image_has_the_projects_python_and_does_not_run_as_root() -> None:
    version = (ROOT / ".python-version").read_text().strip()
    bases = re.findall(r"^FROM (\S+)", dockerfile(), re.MULTILINE)
    assert bases == [f"python:{version}-slim"] * 2
    users = re.findall(r"^USER (\S+)", dockerfile(), re.MULTILINE)
    assert users == ["latchkey"]
    assert "uv sync --locked --no-dev" in dockerfile()


def test_what_must_not_be_in_an_image_is_ignored() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    assert {".git", ".env", "**/.env", "var", ".venv", "tests"} <= ignored
