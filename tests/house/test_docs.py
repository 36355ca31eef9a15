"""The documentation is complete and true: settings, commands and codes cannot be left out of it."""

import ast
import re

import pytest
from django.core.management import get_commands, load_command_class
from django.test import Client
from django.urls import reverse

from keys.verdicts import Code
from tests.house.files import PACKAGES, ROOT, name, project_files, templates

_READERS = {"str", "bool", "int", "list", "_networks", "_choice"}


def readme() -> str:
    return (ROOT / "README.md").read_text()


def first_cells() -> set[str]:
    """Everything in back quotes in the first column of README's tables, arguments left out."""
    rows = re.findall(r"^\|([^|]*)\|", readme(), re.MULTILINE)
    return {quoted.split()[0] for row in rows for quoted in re.findall(r"`([^`]+)`", row)}


def settings_read() -> set[str]:
    """Every environment variable that portal/settings.py reads."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "portal" / "settings.py").read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func
            reader = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            value = node.args[0].value
            reads = reader in _READERS or ast.unparse(called) == "os.environ.get"
            if reads and isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z_]+", value):
                found.add(value)
    return found


def own_commands() -> set[str]:
    return {command for command, app in get_commands().items() if app in PACKAGES}


def test_the_settings_are_found() -> None:
    assert {"SECRET_KEY", "SIGNUP", "TRUSTED_PROXIES", "USAGE_DURABILITY", "ENV_FILE"} <= settings_read()


def test_every_setting_is_in_the_readmes_table() -> None:
    assert settings_read() - first_cells() == set()


def test_the_readmes_settings_all_exist() -> None:
    named = {each for each in first_cells() if re.fullmatch(r"[A-Z]+_[A-Z_]+", each)}
    assert named - settings_read() - {code.name for code in Code} == set()


def test_every_command_is_in_the_readmes_table() -> None:
    assert own_commands() - first_cells() == set()


@pytest.mark.parametrize("command", sorted(own_commands()))
def test_the_readme_names_what_a_command_cannot_do_without(command: str) -> None:
    parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    row = next(line for line in readme().splitlines() if line.startswith(f"| `{command}"))
    needed = [each for each in parser._actions if each.required and each.nargs != "*"]
    shown = row.split("|")[1]
    assert [each.dest for each in needed if str([each.metavar, *each.option_strings][-1]) not in shown] == []


def test_every_command_that_is_shown_exists() -> None:
    known = set(get_commands())
    texts = [path for path in project_files() if path.suffix == ".md"] + templates()
    found = {
        f"{name(path)}: {command}"
        for path in texts
        for command in re.findall(r"manage\.py ([a-z_]+)", path.read_text())
        if command not in known
    }
    assert not found


@pytest.mark.django_db
def test_every_code_is_explained(client: Client) -> None:
    text = readme() + client.get(reverse("docs_errors")).content.decode()
    assert {code.name for code in Code if code.name not in text} == set()


def test_every_link_to_a_file_leads_somewhere() -> None:
    found = {
        f"{name(path)}: {target}"
        for path in project_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\((?!https?:|#|mailto:|/)([^)#\s]+)", path.read_text())
        if not (path.parent / target).exists()
    }
    assert not found


def test_the_readmes_nginx_is_the_recipe() -> None:
    blocks = re.findall(r"```nginx\n(.*?)```", readme(), re.DOTALL)
    assert blocks == [(ROOT / "usage" / "recipes" / "nginx.conf").read_text()]
