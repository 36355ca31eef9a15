"""Every setting, read from the environment once.

This is the only module that looks at environment variables; what it makes of them is plain
Django settings. README's table lists each variable; `portal.checks` refuses unsafe combinations.
"""

import ipaddress
import os
from email.utils import parseaddr, quote
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from django.utils.csp import CSP

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = environ.Env()
# The real environment wins over the file. `quickstart` writes the file; production may have either.
environ.Env.read_env(os.environ.get("ENV_FILE") or VAR_DIR / ".env")


def _networks(name: str, default: list[str]) -> list[str]:
    """A comma-separated list of networks in CIDR notation, checked once, here."""
    values: list[str] = env.list(name, default=default)
    for value in values:
        try:
            ipaddress.ip_network(value.strip())
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}: {error}.") from None
    return [value.strip() for value in values]


def _choice(name: str, default: str, *allowed: str) -> str:
    value: str = env.str(name, default=default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name}: {value!r} is not one of {', '.join(allowed)}.")
    return value


# --- what this portal is -------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", default=False)
# An empty key is refused by check portal.E001 with a mend, rather than by a traceback.
SECRET_KEY = env.str("SECRET_KEY", default="") or "insecure-because-SECRET_KEY-is-not-set"
PORTAL_NAME = env.str("PORTAL_NAME", default="Latchkey")
PORTAL_TEXT = env.str("PORTAL_TEXT", default="")
PORTAL_LOGO = env.str("PORTAL_LOGO", default="")
PORTAL_ACCENT = env.str("PORTAL_ACCENT", default="")
PORTAL_CONTACT = env.str("PORTAL_CONTACT", default="")
PORTAL_URL = env.str("PORTAL_URL", default="http://127.0.0.1:8000").rstrip("/")
_portal = urlsplit(PORTAL_URL)
PORTAL_IS_HTTPS = _portal.scheme == "https"
PORTAL_HOST = _portal.hostname or ""
ALLOWED_HOSTS: list[str] = env.list(
    "ALLOWED_HOSTS",
    default=list(dict.fromkeys([PORTAL_HOST or "localhost", "localhost", "127.0.0.1", "[::1]"])),
)
# An address of the provider's API that a first call may go to; empty: this portal's own.
API_URL = env.str("API_URL", default="")
SIGNUP = env.str("SIGNUP", default="open")
# Terms to accept: an https URL, or the absolute path of a text; asked anew for each version.
TERMS = env.str("TERMS", default="")
TERMS_VERSION = env.str("TERMS_VERSION", default="")

# --- keys ----------------------------------------------------------------------------------------
KEY_PREFIX = env.str("KEY_PREFIX", default="lk")
KEY_QUERY_PARAMETER = env.str("KEY_QUERY_PARAMETER", default="")
KEY_DEFAULT_LIFETIME_DAYS = env.int("KEY_DEFAULT_LIFETIME_DAYS", default=90)
# 0: no limit of the portal's own; an organization's policy may still have one.
KEY_MAX_LIFETIME_DAYS = env.int("KEY_MAX_LIFETIME_DAYS", default=0)
KEYS_STALE_SECONDS = env.int("KEYS_STALE_SECONDS", default=60)
KEYS_IN_MEMORY = env.int("KEYS_IN_MEMORY", default=1_000_000)

# What is done about a leaked key that still works.
LEAK_RESPONSE_LIVE = _choice("LEAK_RESPONSE_LIVE", "revoke", "revoke", "disable", "notify")
LEAK_RESPONSE_TEST = _choice("LEAK_RESPONSE_TEST", "disable", "revoke", "disable", "notify")
GITHUB_KEYS_URL = env.str(
    "GITHUB_KEYS_URL", default="https://api.github.com/meta/public_keys/secret_scanning"
)

# --- usage and the gateway -----------------------------------------------------------------------
USAGE_JOURNAL_DIR = Path(env.str("USAGE_JOURNAL_DIR", default=str(VAR_DIR / "journal")))
USAGE_DURABILITY = _choice("USAGE_DURABILITY", "process", "process", "power")
USAGE_JOURNAL_MAX_BYTES = env.int("USAGE_JOURNAL_MAX_BYTES", default=8 * 1024**3)
USAGE_JOURNAL_KEEP_DAYS = env.int("USAGE_JOURNAL_KEEP_DAYS", default=35)  # 0: not at all
USAGE_REFUSAL_DAYS = env.int("USAGE_REFUSAL_DAYS", default=30)
USAGE_RESOURCES = env.int("USAGE_RESOURCES", default=1000)  # of an organization and meter
SOURCES_PRECISION = _choice("SOURCES_PRECISION", "address", "address", "network")
SOURCES_DAYS = env.int("SOURCES_DAYS", default=90)
# 0: hours are kept for ever.
USAGE_DETAIL_DAYS = env.int("USAGE_DETAIL_DAYS", default=400)
BILLING_GRACE_HOURS = env.int("BILLING_GRACE_HOURS", default=24)  # after a month's end, before it is closed
TRUSTED_PROXIES = _networks("TRUSTED_PROXIES", [])
GATEWAY_NETWORKS = _networks(
    "GATEWAY_NETWORKS",
    ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
)
VALKEY_URL = env.str("VALKEY_URL", default="")
VALKEY_AWAY = _choice("VALKEY_AWAY", "local", "local", "refuse")
WORKERS = env.int("WORKERS", default=1)  # of `serve`; its option wins

# --- Django --------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "portal",
    "usage",
    "keys",
    "portal.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_linear_migrations",
    "allauth",
    "allauth.account",
]

MIDDLEWARE = [
    "portal.middleware.headers",
    "portal.api.answers.as_problems",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "portal.middleware.utf8_only",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.terms.ask_first",
]

ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
AUTH_USER_MODEL = "portal.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.portal",
            ],
        },
    }
]

DATABASE_URL = env.str("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'latchkey.sqlite3'}")
DATABASES = {"default": environ.Env.db_url_config(DATABASE_URL)}
_database = DATABASES["default"]
if _database["ENGINE"] == "django.db.backends.sqlite3":
    _database["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
elif _database["ENGINE"] == "django.db.backends.postgresql":
    _database["CONN_MAX_AGE"] = 0
    from portal.pool import check, retry  # here: an embedded portal needs no psycopg

    _database["OPTIONS"] = {
        **_database.get("OPTIONS", {}),
        "pool": {
            "min_size": 1,
            "max_size": 16,
            "timeout": 10,
            "check": check,
            # After an outage try again each second; by default the pauses grow to minutes.
            "reconnect_timeout": 1,
            "reconnect_failed": retry,
        },
        # A database that went silent must not hold a thread for the kernel's two hours.
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
else:
    raise ImproperlyConfigured("DATABASE_URL: only sqlite:// and postgres:// are supported.")

# allauth counts attempts here. Shared by every process, kept over restarts, and too large for an attacker
# to push a count out of it; an ordinary page asks it nothing. It throws out what is over by itself.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "portal_cache",
        "OPTIONS": {"MAX_ENTRIES": 100_000, "CULL_FREQUENCY": 4},
    }
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "portal.formats"

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_ALLOW_ALL_ORIGINS = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": (
            "django.contrib.staticfiles.storage.StaticFilesStorage"
            if DEBUG
            else "whitenoise.storage.CompressedManifestStaticFilesStorage"
        )
    },
}

# --- e-mail --------------------------------------------------------------------------------------
EMAIL_URL = env.str("EMAIL_URL", default="consolemail://")
_email = environ.Env.email_url_config(EMAIL_URL)
_email_options = {
    "host": _email["EMAIL_HOST"],
    "port": _email["EMAIL_PORT"],
    "username": _email["EMAIL_HOST_USER"],
    "password": _email["EMAIL_HOST_PASSWORD"],
    "use_tls": _email.get("EMAIL_USE_TLS", False),
    "use_ssl": _email.get("EMAIL_USE_SSL", False),
    "timeout": 20,
}
if _email["EMAIL_BACKEND"].endswith("filebased.EmailBackend"):
    _email_options = {"file_path": "/" + _email["EMAIL_FILE_PATH"].lstrip("/")}
elif not _email["EMAIL_BACKEND"].endswith("smtp.EmailBackend"):
    _email_options = {}
MAILERS = {"default": {"BACKEND": _email["EMAIL_BACKEND"], "OPTIONS": _email_options}}
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="portal@localhost")
# In quotes a name may have a comma or a full stop, which no mail can be sent from otherwise (RFC 5322, 3.4).
_sender, _address = parseaddr(DEFAULT_FROM_EMAIL)
DEFAULT_FROM_EMAIL = f'"{quote(_sender or PORTAL_NAME)}" <{_address}>'
SERVER_EMAIL = DEFAULT_FROM_EMAIL

# --- accounts ------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
ACCOUNT_ADAPTER = "portal.accounts.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_FORMS = {"signup": "portal.accounts.InvitedSignupForm"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
# It could be offered only where there is an account to change, and so would tell which addresses have one.
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_CHANGE = False
ACCOUNT_EMAIL_NOTIFICATIONS = True  # "your password was changed" and the like
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True  # a code instead of a link that is a secret
ACCOUNT_LOGIN_BY_CODE_ENABLED = True
ACCOUNT_LOGIN_BY_CODE_SUPPORTS_RESEND = True
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 900  # seconds
ACCOUNT_RATE_LIMITS = {"leak": "10/m/ip"}  # beside allauth's own: the page where anybody can report a key
ACCOUNT_DEFAULT_HTTP_PROTOCOL = _portal.scheme or "http"
ALLAUTH_TRUSTED_PROXY_COUNT = 0  # portal.wsgi has already put the true client into REMOTE_ADDR
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "landing"
ACCOUNT_LOGOUT_REDIRECT_URL = "landing"

# --- security headers (CSP, https) ---------------------------------------------------------------
SECURE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "form-action": [CSP.SELF],
    "manifest-src": [CSP.SELF],
    "base-uri": [CSP.NONE],
    "frame-ancestors": [CSP.NONE],
    "object-src": [CSP.NONE],
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = PORTAL_IS_HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if PORTAL_IS_HTTPS else 0
# The portal's host only: its neighbours are not ours to bind.
SECURE_HSTS_INCLUDE_SUBDOMAINS = False
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]  # they ask for more than that
SESSION_COOKIE_SECURE = PORTAL_IS_HTTPS
CSRF_COOKIE_SECURE = PORTAL_IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 14 * 86_400  # seconds
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576  # bytes
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1_100  # a form may choose a thousand keys (`portal.key_list.MOST`)

# --- logs: no request body, header or query string ever enters one ---
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "portal.logs.Formatter",
            "format": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        },
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        # While the database is away each try would be a line; who needs it says so once.
        "psycopg.pool": {"handlers": [], "level": "ERROR", "propagate": True},
        # Scanners send any Host; each is answered 400, and a traceback for each would only fill the log.
        "django.security.DisallowedHost": {"handlers": [], "level": "CRITICAL", "propagate": False},
    },
}
