"""Rules of the house that a reader could forget: who imports whom, and what code may not do at all."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.files import PACKAGES, ROOT, name, python_files

# The plaintext of a key passes through these and no others. Adding one is a decision.
SEES_PLAINTEXT = {
    "keys/tokens.py",  # makes it
    "keys/lifecycle/secrets.py",  # hands it to whoever asked
    "keys/once.py",  # the answer that shows it
    "keys/views.py",
    "portal/views/welcome.py",
    "portal/api/manage.py",
    "keys/admin/keys.py",
    "keys/management/base.py",  # prints it, once
    "portal/management/commands/quickstart.py",
}

# Everything else asks django.conf.settings.
TOUCHES_ENVIRONMENT = {
    "portal/settings.py",  # reads it
    "keys/scanning/git.py",  # gives git a part of it
    "keys/examples.py",  # shows a line that reads it
    "portal/wsgi.py",  # names the settings, as every wsgi module
    "portal/folder.py",  # quickstart's: makes the file that settings read
    "portal/restart.py",
    "portal/serving.py",  # clears it before a server copies it into every request
}

# What is forbidden below, but for these, where it is the point.
ALLOWED = {
    r"\bcsrf_exempt\b": {"usage/decorators.py"},  # its views are opened by a header alone
}

FORBIDDEN = {
    r"\bcsrf_exempt\b": "every form has its token; what is opened by a key is no form",
    r"\bmark_safe\b|\bSafeString\(": "format_html escapes what it is given",
    r"\bpickle\b|\bmarshal\b": "what is read back must not be able to run",
    r"\bshell=True\b|\bos\.system\b": "arguments are lists",
    r"(?<![\w.])eval\(|(?<![\w.])exec\(": "nothing is run that came as text",
    r"\bpost_save\b|\bpre_save\b|\bm2m_changed\b|@receiver\b": "acts are functions of lifecycle; no signals",
    r"\.get_model\(": "imports are written out, in the direction that is allowed",
    r"\.extra\(|\bRawSQL\b": "queries are the ORM's or whole statements",
    r"style=[\"']|<style|<script|\bon(click|load|change|submit|input)=": "the policy allows nothing inline",
    r"request\.META\[.HTTP_X_FORWARDED|HTTP_X_REAL_IP": "portal.wsgi alone decides who the client is",
}


def test_imports_go_in_one_direction() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def _is_view(path: Path) -> bool:
    return path.stem.startswith("views") or path.stem.endswith("_views") or "views" in path.parts


def test_views_reach_rows_only_through_the_request() -> None:
    managers = {"objects", "_default_manager", "_base_manager"}
    found = [
        f"{name(path)}:{node.lineno}"
        for path in python_files(*PACKAGES)
        if _is_view(path)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in managers
    ]
    assert not found
    assert any(_is_view(path) for path in python_files(*PACKAGES))


@pytest.mark.parametrize(("pattern", "reason"), FORBIDDEN.items())
def test_no_code_does_what_is_forbidden(pattern: str, reason: str) -> None:
    found = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in python_files(*PACKAGES)
        if name(path) not in ALLOWED.get(pattern, set())
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, reason


def test_the_plaintext_of_a_key_passes_through_few_hands() -> None:
    found = {name(path) for path in python_files(*PACKAGES) if re.search(r"\bplaintext\b", path.read_text())}
    assert found <= SEES_PLAINTEXT


def test_the_environment_is_touched_in_few_places() -> None:
    found = {
        name(path)
        for path in python_files(*PACKAGES)
        if re.search(r"\bos\.environ\b|\bos\.getenv\b", path.read_text())
    }
    # Commands hand it on to the processes that they start.
    assert {each for each in found if "/management/" not in each} <= TOUCHES_ENVIRONMENT


def test_what_is_ignored_by_a_tool_says_why() -> None:
    bare = re.compile(r"#\s*(type:\s*ignore(\[[\w,-]+\])?|noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?)\s*$")
    found = [
        f"{name(path)}:{number}"
        for path in python_files(*PACKAGES, "tests")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert not found


def test_every_module_says_what_it_is_for() -> None:
    found = [
        name(path)
        for path in python_files(*PACKAGES, "tests")
        if path.stat().st_size
        and path.name != "apps.py"
        and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not found
