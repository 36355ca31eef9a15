"""The portal's settings under test: the same module, read from an environment that is always the same.

Nothing of the developer's own `.env` or shell gets in; only the database comes from outside, from
`tests.embedded`. What differs from production is here and nowhere else: cheap passwords, mail in
memory, static files without hashed names.
"""

import os
from pathlib import Path

_folder = Path(os.environ["LATCHKEY_TESTS_DIR"])
# xdist's workers share the folder and the server; each has a part of its own.
_mine = _folder / os.environ.get("PYTEST_XDIST_WORKER", "main")
_database = os.environ["DATABASE_URL"]

ENVIRONMENT = {
    "ENV_FILE": os.devnull,
    "SECRET_KEY": "for-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789",
    "DATABASE_URL": _database,
    "USAGE_JOURNAL_DIR": str(_mine / "journal"),
    "EMAIL_URL": "memorymail://",
}
UNSET = (
    "ALLOWED_HOSTS",
    "API_URL",
    "DEBUG",
    "DEFAULT_FROM_EMAIL",
    "GATEWAY_NETWORKS",
    "KEYS_IN_MEMORY",
    "KEYS_STALE_SECONDS",
    "KEY_DEFAULT_LIFETIME_DAYS",
    "KEY_MAX_LIFETIME_DAYS",
    "KEY_PREFIX",
    "KEY_QUERY_PARAMETER",
    "PORTAL_ACCENT",
    "PORTAL_CONTACT",
    "PORTAL_LOGO",
    "PORTAL_NAME",
    "PORTAL_TEXT",
    "PORTAL_URL",
    "SIGNUP",
    "SOURCES_DAYS",
    "SOURCES_PRECISION",
    "TERMS",
    "TERMS_VERSION",
    "TRUSTED_PROXIES",
    "USAGE_DETAIL_DAYS",
    "USAGE_DURABILITY",
    "USAGE_JOURNAL_KEEP_DAYS",
    "USAGE_JOURNAL_MAX_BYTES",
    "USAGE_REFUSAL_DAYS",
    "USAGE_RESOURCES",
    "VALKEY_AWAY",
    "VALKEY_URL",
    "WORKERS",
)
for _name in UNSET:
    os.environ.pop(_name, None)
os.environ.update(ENVIRONMENT)

from portal.settings import *  # noqa: E402, F403  after the environment is what it must be
from portal.settings import DATABASES, USAGE_JOURNAL_DIR  # noqa: E402  named, for the type checker

USAGE_JOURNAL_DIR.mkdir(parents=True, exist_ok=True)

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["TEST"] = {"NAME": str(_mine / "test.sqlite3")}

STATIC_ROOT = _mine / "static"
STATIC_ROOT.mkdir(exist_ok=True)
WHITENOISE_AUTOREFRESH = True  # finds static files where they are; nothing is collected
WHITENOISE_USE_FINDERS = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
