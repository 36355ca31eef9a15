"""Each unsafe setting is refused by its id, and each hint says how to mend it."""

import os
import re
import subprocess
import sys
from email import policy
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, run_checks
from pytest_django import Settings

from portal import brand_checks, checks, terms_checks


def found() -> list[CheckMessage]:
    return run_checks(tags=["portal"])


def ids() -> list[str | None]:
    return [message.id for message in found()]


@pytest.fixture
def production(settings: Settings) -> Settings:
    """A portal on the open internet, as it should be."""
    settings.PORTAL_URL = "https://keys.example.com"
    settings.ALLOWED_HOSTS = ["keys.example.com"]
    settings.DATABASE_URL = "postgres://latchkey@db/latchkey"
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend"}}
    settings.DEFAULT_FROM_EMAIL = "Acme API <api@example.com>"
    settings.TRUSTED_PROXIES = ["10.0.0.5/32"]
    return settings


def test_the_defaults_on_ones_own_machine_are_accepted() -> None:
    assert ids() == []


def test_a_good_production_is_accepted(production: Settings) -> None:
    assert ids() == []


@pytest.mark.parametrize(
    ("name", "value", "id"),
    [
        ("SECRET_KEY", "insecure-because-SECRET_KEY-is-not-set", "portal.E001"),
        ("SECRET_KEY", "short", "portal.E001"),
        ("SECRET_KEY", "ab" * 40, "portal.E001"),
        ("DEBUG", True, "portal.E002"),
        ("PORTAL_URL", "ftp://keys.example.com", "portal.E003"),
        ("PORTAL_URL", "keys.example.com", "portal.E003"),
        ("PORTAL_URL", "https://", "portal.E003"),
        ("PORTAL_URL", "https://keys.example.com/portal", "portal.E003"),
        ("PORTAL_URL", "https://keys.example.com?a=1", "portal.E003"),
        ("PORTAL_URL", "https://me:pw@keys.example.com", "portal.E003"),
        ("PORTAL_URL", "https://keys.example.com:port", "portal.E003"),
        ("PORTAL_URL", "https://[::1", "portal.E003"),
        ("PORTAL_URL", "http://keys.example.com", "portal.E004"),
        ("PORTAL_URL", "http://10.0.0.1", "portal.E004"),
        ("PORTAL_URL", "http://localhost.example.com", "portal.E004"),
        ("ALLOWED_HOSTS", ["*"], "portal.E005"),
        ("ALLOWED_HOSTS", ["keys.example.com", "*"], "portal.E005"),
        ("ALLOWED_HOSTS", ["example.com"], "portal.E006"),
        ("ALLOWED_HOSTS", [], "portal.E006"),
        ("API_URL", "api.example.com", "portal.E024"),
        ("API_URL", "http://api.example.com/v1", "portal.E024"),
        ("API_URL", "https://api.example.com/$(id)", "portal.E024"),
        ("API_URL", 'https://api.example.com/"', "portal.E024"),
        ("API_URL", "https://[::1/", "portal.E024"),
        ("API_URL", "https://api.example.com:99999/", "portal.E024"),
        ("PORTAL_NAME", " ", "portal.E042"),
        ("PORTAL_NAME", "x" * 61, "portal.E042"),
        ("PORTAL_NAME", "Acme\nBcc: all@example.com", "portal.E042"),
        ("PORTAL_NAME", "Acme \udc80", "portal.E042"),
        ("PORTAL_NAME", "<b>Acme</b>", "portal.E042"),
        ("PORTAL_TEXT", "x" * 1001, "portal.E043"),
        ("PORTAL_TEXT", "Maps\0", "portal.E043"),
        ("PORTAL_TEXT", "Maps <a href='/'>of</a> all", "portal.E043"),
        ("PORTAL_CONTACT", "support", "portal.E044"),
        ("PORTAL_CONTACT", "Support <support@example.com>", "portal.E044"),
        ("PORTAL_CONTACT", "support@example.com?bcc=all@example.com", "portal.E044"),
        ("PORTAL_CONTACT", "http://example.com/support", "portal.E044"),
        ("PORTAL_CONTACT", "javascript:alert(1)", "portal.E044"),
        ("PORTAL_CONTACT", "https://", "portal.E044"),
        ("PORTAL_CONTACT", "https://example.com/\nx", "portal.E044"),
        ("PORTAL_ACCENT", "red", "portal.E025"),
        ("PORTAL_ACCENT", "#fff", "portal.E025"),
        ("PORTAL_ACCENT", "#ffc53d", "portal.E025"),
        ("PORTAL_ACCENT", "#4f46e5,#1c1c1c", "portal.E025"),
        ("PORTAL_ACCENT", "#4f46e5,#4f46e5,#4f46e5", "portal.E025"),
        ("PORTAL_LOGO", "/nowhere/logo.svg", "portal.E026"),
        ("PORTAL_LOGO", "logo.svg", "portal.E026"),
        ("PORTAL_LOGO", "/etc/passwd", "portal.E026"),
        ("PORTAL_LOGO", "/tmp/\0.svg", "portal.E026"),
        ("TERMS", "https://", "portal.E034"),
        ("TERMS", "http://example.com/terms", "portal.E034"),
        ("TERMS", "javascript:alert(1)", "portal.E034"),
        ("TERMS", "https://[", "portal.E034"),
        ("TERMS", "terms.txt", "portal.E034"),
        ("TERMS", "/nowhere/terms.txt", "portal.E034"),
        ("TERMS", "/dev/null", "portal.E034"),
        ("TERMS", "/tmp/\0", "portal.E034"),
        ("TERMS_VERSION", "", "portal.E035"),
        ("TERMS_VERSION", "a b", "portal.E035"),
        ("TERMS_VERSION", "a" * 41, "portal.E035"),
        ("KEY_PREFIX", "", "portal.E007"),
        ("KEY_PREFIX", "Acme", "portal.E007"),
        ("KEY_PREFIX", "a_b", "portal.E007"),
        ("KEY_PREFIX", "a" * 17, "portal.E007"),
        ("KEY_DEFAULT_LIFETIME_DAYS", 0, "portal.E008"),
        ("KEY_MAX_LIFETIME_DAYS", -1, "portal.E008"),
        ("KEY_MAX_LIFETIME_DAYS", 89, "portal.E008"),
        ("KEY_MAX_LIFETIME_DAYS", 9_999_999, "portal.E008"),
        ("KEY_DEFAULT_LIFETIME_DAYS", 9_999_999, "portal.E008"),
        ("KEYS_STALE_SECONDS", 0, "portal.E009"),
        ("KEYS_STALE_SECONDS", 3601, "portal.E009"),
        ("KEYS_IN_MEMORY", 0, "portal.E010"),
        ("SIGNUP", "", "portal.E011"),
        ("SIGNUP", "everyone", "portal.E011"),
        ("SIGNUP", "domain", "portal.E011"),
        ("SIGNUP", "domain:", "portal.E011"),
        ("SIGNUP", "domain:@example.com", "portal.E011"),
        ("SIGNUP", "domain:example.com,", "portal.E011"),
        ("KEY_QUERY_PARAMETER", "api key", "portal.E012"),
        ("KEY_QUERY_PARAMETER", "a" * 33, "portal.E012"),
        ("KEY_QUERY_PARAMETER", "scope", "portal.E012"),
        ("KEY_QUERY_PARAMETER", "api_key", "portal.W001"),
        ("TRUSTED_PROXIES", ["0.0.0.0/0"], "portal.E013"),
        ("TRUSTED_PROXIES", ["10.0.0.0/8", "::/0"], "portal.E013"),
        ("TRUSTED_PROXIES", ["0.0.0.0/1", "128.0.0.0/1"], "portal.E013"),
        ("GATEWAY_NETWORKS", ["0.0.0.0/0"], "portal.W002"),
        ("GATEWAY_NETWORKS", ["::/0"], "portal.W002"),
        ("DATABASE_URL", "sqlite:////srv/latchkey.sqlite3", "portal.W003"),
        ("DEFAULT_FROM_EMAIL", "Acme", "portal.E015"),
        ("DEFAULT_FROM_EMAIL", "", "portal.E015"),
        ("DEFAULT_FROM_EMAIL", "Acme <api@>", "portal.E015"),
        ("DEFAULT_FROM_EMAIL", "Acme <portal@localhost>", "portal.W004"),
        ("VALKEY_URL", "http://valkey", "portal.E017"),
        ("VALKEY_URL", "valkey://:password@host:port", "portal.E017"),
        ("WORKERS", 2, "portal.W005"),
        ("WORKERS", 0, "portal.E018"),
        ("USAGE_JOURNAL_MAX_BYTES", 16 * 1024**2 - 1, "portal.E019"),
        ("USAGE_JOURNAL_MAX_BYTES", 0, "portal.E019"),
        ("USAGE_JOURNAL_KEEP_DAYS", -1, "portal.E020"),
        ("USAGE_JOURNAL_KEEP_DAYS", 10**12, "portal.E020"),
        ("USAGE_REFUSAL_DAYS", 0, "portal.E021"),
        ("USAGE_REFUSAL_DAYS", 367, "portal.E021"),
        ("SOURCES_DAYS", 0, "portal.E027"),
        ("SOURCES_DAYS", 367, "portal.E027"),
        ("USAGE_DETAIL_DAYS", 70, "portal.E023"),
        ("USAGE_DETAIL_DAYS", -1, "portal.E023"),
        ("USAGE_DETAIL_DAYS", 1_000_000, "portal.E023"),
        ("USAGE_JOURNAL_DIR", Path("journal"), "portal.E016"),
        ("BILLING_GRACE_HOURS", -1, "portal.E041"),
        ("BILLING_GRACE_HOURS", 745, "portal.E041"),
        ("GITHUB_KEYS_URL", "http://api.github.com/keys", "portal.E036"),
        ("GITHUB_KEYS_URL", "file:///etc/passwd", "portal.E036"),
        ("GITHUB_KEYS_URL", "https://[", "portal.E036"),
        ("GITHUB_KEYS_URL", "", "portal.E036"),
        ("USAGE_RESOURCES", 0, "portal.E022"),
        ("USAGE_RESOURCES", 100_001, "portal.E022"),
        ("USAGE_JOURNAL_DIR", Path(os.devnull), "portal.E016"),
        ("USAGE_JOURNAL_DIR", Path(os.devnull) / "journal", "portal.E016"),
    ],
)
def test_an_unsafe_setting_is_found(production: Settings, name: str, value: Any, id: str) -> None:
    production.TERMS, production.TERMS_VERSION = "https://example.com/terms", "1"
    setattr(production, name, value)
    if name == "PORTAL_URL":
        production.ALLOWED_HOSTS = [".example.com", "10.0.0.1"]
    assert ids() == [id]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORTAL_URL", "https://keys.example.com:8443"),
        ("ALLOWED_HOSTS", [".example.com"]),
        ("KEY_MAX_LIFETIME_DAYS", 90),
        ("KEYS_STALE_SECONDS", 1),
        ("SIGNUP", "invite"),
        ("SIGNUP", "closed"),
        ("SIGNUP", "domain:example.com"),
        ("SIGNUP", "domain:example.com, Example.co.uk"),
        ("GITHUB_KEYS_URL", "http://127.0.0.1:9999/keys"),
        ("VALKEY_URL", "valkey://:password@valkey.internal:6379/2"),
        ("VALKEY_URL", "valkeys://valkey.internal"),
        ("VALKEY_URL", "unix:///run/valkey.sock"),
        ("TRUSTED_PROXIES", []),
        ("USAGE_JOURNAL_KEEP_DAYS", 0),
        ("USAGE_JOURNAL_MAX_BYTES", 16 * 1024**2),
        ("TRUSTED_PROXIES", ["10.0.0.0/8", "fc00::/7"]),
    ],
)
def test_a_safe_setting_is_not_found(production: Settings, name: str, value: Any) -> None:
    setattr(production, name, value)
    assert ids() == []


@pytest.mark.parametrize("name", ["console", "dummy", "locmem"])
def test_mail_that_reaches_nobody_is_for_ones_own_machine(production: Settings, name: str) -> None:
    production.MAILERS = {"default": {"BACKEND": f"django.core.mail.backends.{name}.EmailBackend"}}
    assert ids() == ["portal.E014"]
    production.PORTAL_URL = "http://localhost:8000"
    production.ALLOWED_HOSTS = ["localhost"]
    assert ids() == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "keys.localhost"])
def test_plain_http_and_debug_are_accepted_on_loopback(production: Settings, host: str) -> None:
    production.PORTAL_URL = f"http://{host}:8000"
    production.ALLOWED_HOSTS = [host]
    production.DEBUG = True
    assert ids() == []


def test_any_host_is_accepted_while_debugging_on_ones_own_machine(settings: Settings) -> None:
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = ["*"]
    assert ids() == []


def test_a_journal_folder_of_another_user_is_found(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o500)
    settings.USAGE_JOURNAL_DIR = folder
    was = os.geteuid()
    if was == 0:  # root may write everywhere: look as somebody else does
        os.seteuid(65534)
    try:
        assert ids() == ["portal.E016"]
    finally:
        os.seteuid(was)


def test_a_journal_folder_that_can_be_made_is_accepted(settings: Settings, tmp_path: Path) -> None:
    settings.USAGE_JOURNAL_DIR = tmp_path / "var" / "journal"
    assert ids() == []


def test_every_message_says_how_to_mend_it_and_shows_no_secret(production: Settings) -> None:
    production.SECRET_KEY = "opensesame"
    production.KEY_PREFIX = "NO"
    production.TRUSTED_PROXIES = ["0.0.0.0/0"]
    messages = found()
    assert len(messages) == 3
    assert all(message.hint for message in messages)
    assert "opensesame" not in str(messages)


def test_every_check_is_tested_here() -> None:
    pattern = re.compile(r'"(portal\.[EW]\d{3})"')
    modules = checks, brand_checks, terms_checks
    made = {each for module in modules for each in pattern.findall(Path(str(module.__file__)).read_text())}
    assert "portal.E001" in made
    assert made <= set(pattern.findall(Path(__file__).read_text()))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Acme API <api@example.com>", "Acme API"),
        ("Acme.com <api@example.com>", "Acme.com"),
        ("Acme <api@example.com", "Acme"),
        ('"Acme, \\"Inc\\"" <api@example.com>', 'Acme, "Inc"'),
        ("Söhne <api@example.com>", "Söhne"),
        ("api@example.com", "Latchkey"),
    ],
)
def test_mail_can_be_sent_from_any_sender_that_the_checks_let_pass(given: str, name: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", "from portal import settings; print(settings.DEFAULT_FROM_EMAIL)"],
        cwd=django_settings.BASE_DIR,
        env={**os.environ, "DEFAULT_FROM_EMAIL": given, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    ).stdout
    sender = policy.default.header_factory("From", printed.strip())
    assert not sender.defects
    assert [(each.display_name, each.addr_spec) for each in sender.addresses] == [(name, "api@example.com")]


@pytest.mark.parametrize("command", [["check"], ["serve", "--port", "65500"]])
def test_a_server_does_not_start_on_an_unsafe_setting(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=django_settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "portal.settings", "SECRET_KEY": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "portal.E001" in result.stderr
    assert "HINT: Make one with" in result.stderr
    assert "Traceback" not in result.stderr
