"""Models and migrations agree, and the whole project passes Django's own checks."""

import os
import subprocess
import sys

import pytest
from django.core.checks import run_checks
from django.core.management import call_command

from tests.house.files import ROOT

PRODUCTION = {
    "DJANGO_SETTINGS_MODULE": "portal.settings",
    "ENV_FILE": os.devnull,
    "SECRET_KEY": "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "DATABASE_URL": "postgres://latchkey:password@localhost/latchkey",
    "PORTAL_URL": "https://keys.example.com",
    "ALLOWED_HOSTS": "keys.example.com",
    "EMAIL_URL": "smtp+tls://user:password@mail.example.com:587",
    "DEFAULT_FROM_EMAIL": "Acme API <api@example.com>",
    "TRUSTED_PROXIES": "10.0.0.5/32",
}


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db
def test_djangos_own_checks_find_nothing() -> None:
    assert run_checks() == []


def test_a_production_environment_passes_the_deployment_checks() -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={**os.environ, **PRODUCTION},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
