"""The house has the rooms of its plan and no others, and names no machine that it was built on."""

import os
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings

from tests.house.files import PACKAGES, ROOT, name, project_files

FOLDERS = {"portal", "keys", "usage", "templates", "static", "tests", ".ci"}
FILES = {
    "manage.py",
    "pyproject.toml",
    "README.md",
    "uv.lock",
    "Dockerfile",
    "compose.yaml",
    "LICENSE",
    ".python-version",
    ".gitignore",
    ".dockerignore",
}
OPTIONAL = {"CHANGELOG.md"}


def test_the_top_level_is_the_plans() -> None:
    parts = [path.relative_to(ROOT).parts for path in project_files()]
    assert {each[0] for each in parts if len(each) > 1} == FOLDERS
    assert {each[0] for each in parts if len(each) == 1} - OPTIONAL == FILES


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_explains_itself_and_every_module_of_it(package: str) -> None:
    readme = ROOT / package / "README.md"
    assert readme.exists()
    text = readme.read_text()
    modules = {
        path.name
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" and not path.name.startswith(("__", "apps.")) and path.stat().st_size
    }
    packages = {
        f"{path.parent.name}/"
        for path in (ROOT / package).glob("*/__init__.py")
        if path.parent.name not in ("migrations", "management")
    }
    unmentioned = {each for each in modules | packages if f"`{each}`" not in text}
    assert not unmentioned


def test_every_python_package_is_one_to_python() -> None:
    folders = {path.parent for path in project_files() if path.suffix == ".py" and path.parent != ROOT}
    assert not {name(each) for each in folders if not (each / "__init__.py").exists()}


def test_no_file_names_the_machine_it_was_made_on() -> None:
    strange = [r"/home/\w", r"/Users/\w", r"/root/[\w.]"]
    if len(ROOT.parts) > 2:
        strange.append(re.escape(str(ROOT)) + r"\b")
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        host = urlsplit(os.environ.get(variable, "")).hostname
        if host and host not in ("pypi.org", "localhost", "127.0.0.1"):
            strange.append(re.escape(host))
    pattern = re.compile("|".join(strange).encode())
    here = Path(__file__).resolve()
    found = {name(path) for path in project_files() if path != here and pattern.search(path.read_bytes())}
    assert not found


def test_packages_are_locked_to_the_public_registry_alone() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    sources = [each["source"] for each in lock["package"] if each["name"] != "latchkey"]
    assert {next(iter(source.values())) for source in sources} == {"https://pypi.org/simple"}


def test_the_python_version_is_one_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = (ROOT / ".python-version").read_text().strip()
    assert project["requires-python"] == ">=3.12"
    assert version == "3.13"


def test_what_a_running_portal_writes_is_not_tracked() -> None:
    assert name(settings.VAR_DIR) == "var"
    assert not [path for path in project_files() if name(path).startswith("var/")]
    assert not [path for path in project_files() if path.name == ".env" or path.suffix == ".sqlite3"]
