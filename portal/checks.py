"""System checks: every unsafe setting is refused at start, by an id and with a hint that says how to mend it.

Only checks live here; nothing here reads the environment or changes a setting. Errors (`portal.E…`) keep
`serve` from starting; warnings (`portal.W…`) are printed. An id never changes its meaning.
"""

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from email.utils import parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.http.request import validate_host

from keys.tokens import is_prefix
from usage import events

HOW_TO_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe(50))'"
SECRET_LENGTH = 50  # as Django's own security.W009
STALE_SECONDS = (1, 3600)
MAX_WORKERS = 64
MIN_JOURNAL_BYTES = 16 * 1024**2  # for each worker
MAX_KEEP_DAYS = 36_500
MAX_LIFETIME_DAYS = 36_500  # as a policy's: no date is behind the last that there is
REFUSAL_DAYS = (1, 366)
MAX_RESOURCES = 100_000
SOURCE_DAYS = (1, 366)
MAX_GRACE_HOURS = 24 * 31
DETAIL_DAYS = events.REMEMBERED.days + 1

_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}", re.ASCII)
# What the gateway's own query already means.
_GATEWAY_PARAMETERS = frozenset({"scope", "environment", "cost", "meter", "resource", "hold", "deny"})
_BACKENDS_THAT_DELIVER_NOTHING = ("console", "dummy", "locmem")


def is_loopback(host: str) -> bool:
    """Does `host` (no port, no brackets) mean this machine and nothing else?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _host() -> str:
    """PORTAL_URL's host; empty if the URL is so broken that `portal_url` reports it."""
    try:
        return urlsplit(settings.PORTAL_URL).hostname or ""
    except ValueError:
        return ""


def _is_public() -> bool:
    return not is_loopback(_host())


def _everything(networks: Iterable[str]) -> list[str]:
    """The families (`0.0.0.0/0`, `::/0`) that the networks cover completely, in one piece or in several."""
    parsed = [ipaddress.ip_network(each) for each in networks]
    v4 = ipaddress.collapse_addresses(n for n in parsed if isinstance(n, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(n for n in parsed if isinstance(n, ipaddress.IPv6Network))
    return [piece for piece in (*map(str, v4), *map(str, v6)) if piece in ("0.0.0.0/0", "::/0")]


@register(Tags.security, "portal")
def secret_key(**kwargs: Any) -> Iterator[CheckMessage]:
    if settings.SECRET_KEY.startswith("insecure-"):
        what = "SECRET_KEY is not set."
    elif len(settings.SECRET_KEY) < SECRET_LENGTH or len(set(settings.SECRET_KEY)) < 10:
        what = f"SECRET_KEY is easy to guess: it needs {SECRET_LENGTH} characters of chance."
    else:
        return
    yield Error(what, hint=f"Make one with `{HOW_TO_MAKE_ONE}` and keep it secret.", id="portal.E001")


@register(Tags.security, "portal")
def debug(**kwargs: Any) -> Iterator[CheckMessage]:
    if settings.DEBUG and _is_public():
        yield Error(
            "DEBUG is on, though PORTAL_URL is not on this machine: error pages would show settings.",
            hint="Remove DEBUG from the environment; it is off by default.",
            id="portal.E002",
        )


@register(Tags.security, "portal")
def portal_url(**kwargs: Any) -> Iterator[CheckMessage]:
    hint = "Give the address that people type, e.g. PORTAL_URL=https://keys.example.com"
    try:
        url = urlsplit(settings.PORTAL_URL)
        url.port  # noqa: B018  reading it is what validates it
    except ValueError as error:
        yield Error(f"PORTAL_URL is not a URL: {error}.", hint=hint, id="portal.E003")
        return
    if url.scheme not in ("http", "https") or not url.hostname:
        yield Error("PORTAL_URL must begin with https:// and a host.", hint=hint, id="portal.E003")
    elif url.path or url.query or url.fragment or url.username is not None:
        yield Error("PORTAL_URL must be a scheme and a host, nothing else.", hint=hint, id="portal.E003")
    elif url.scheme == "http" and _is_public():
        yield Error(
            "PORTAL_URL is plain http: sign-ins and new keys could be read on the way.",
            hint="Put TLS in front and say https://; plain http is for localhost only.",
            id="portal.E004",
        )


@register(Tags.security, "portal")
def allowed_hosts(**kwargs: Any) -> Iterator[CheckMessage]:
    host = _host()
    shown = f"[{host}]" if ":" in host else host
    if "*" in settings.ALLOWED_HOSTS and not settings.DEBUG:
        yield Error(
            "ALLOWED_HOSTS accepts any name: links in mails could be made to point elsewhere.",
            hint="Name the hosts, or remove ALLOWED_HOSTS: PORTAL_URL's host is its default.",
            id="portal.E005",
        )
    elif host and not validate_host(shown, settings.ALLOWED_HOSTS):
        yield Error(
            f"ALLOWED_HOSTS lacks {shown}, the host of PORTAL_URL: every page would answer 400.",
            hint=f"Add {shown} to ALLOWED_HOSTS, or remove ALLOWED_HOSTS.",
            id="portal.E006",
        )


@register("portal")
def key_prefix(**kwargs: Any) -> Iterator[CheckMessage]:
    if not is_prefix(settings.KEY_PREFIX):
        yield Error(
            "KEY_PREFIX cannot begin a key.",
            hint="Use a lower-case letter and up to 15 lower-case letters or digits, e.g. KEY_PREFIX=acme",
            id="portal.E007",
        )


@register("portal")
def lifetimes(**kwargs: Any) -> Iterator[CheckMessage]:
    default, longest = settings.KEY_DEFAULT_LIFETIME_DAYS, settings.KEY_MAX_LIFETIME_DAYS
    if not 1 <= default <= (longest or MAX_LIFETIME_DAYS) or not 0 <= longest <= MAX_LIFETIME_DAYS:
        yield Error(
            f"KEY_DEFAULT_LIFETIME_DAYS={default} and KEY_MAX_LIFETIME_DAYS={longest} do not go together.",
            hint=f"The default is at least 1 day and at most the maximum; a maximum of 0 means none, and "
            f"{MAX_LIFETIME_DAYS} is the most for both.",
            id="portal.E008",
        )


@register("portal")
def freshness(**kwargs: Any) -> Iterator[CheckMessage]:
    least, most = STALE_SECONDS
    if not least <= settings.KEYS_STALE_SECONDS <= most:
        yield Error(
            f"KEYS_STALE_SECONDS is {settings.KEYS_STALE_SECONDS}: a revoked key may work for so long on a "
            "server that is cut off from the database.",
            hint=f"Use {least} to {most} seconds; 60 is the default.",
            id="portal.E009",
        )
    if settings.KEYS_IN_MEMORY < 1:
        yield Error(
            "KEYS_IN_MEMORY must be at least 1.",
            hint="Remove it; the default is 1,000,000 keys.",
            id="portal.E010",
        )


@register(Tags.security, "portal")
def signup(**kwargs: Any) -> Iterator[CheckMessage]:
    kind, colon, domains = settings.SIGNUP.partition(":")
    if kind == "domain" and colon:
        known = all(_DOMAIN.fullmatch(each.strip().lower()) for each in domains.split(","))
    else:
        known = settings.SIGNUP in ("open", "invite", "closed")
    if not known:
        yield Error(
            f"SIGNUP={settings.SIGNUP} does not say who may sign up.",
            hint="Use open, invite, closed, or domain:example.com (more domains by comma).",
            id="portal.E011",
        )


@register(Tags.security, "portal")
def key_query_parameter(**kwargs: Any) -> Iterator[CheckMessage]:
    name = settings.KEY_QUERY_PARAMETER
    if not name:
        return
    if not _PARAMETER.fullmatch(name) or name in _GATEWAY_PARAMETERS:
        yield Error(
            f"KEY_QUERY_PARAMETER={name} cannot be the name of a query parameter that carries keys.",
            hint="Use letters, digits, '_', '.' or '-', a letter first, and none of the gateway's own: "
            f"{', '.join(sorted(_GATEWAY_PARAMETERS))}.",
            id="portal.E012",
        )
    else:
        yield Warning(
            "KEY_QUERY_PARAMETER is set: keys in URLs end in the logs of every proxy on their way.",
            hint="Remove it as soon as your customers send the Authorization header.",
            id="portal.W001",
        )


@register(Tags.security, "portal")
def networks(**kwargs: Any) -> Iterator[CheckMessage]:
    if trusted := _everything(settings.TRUSTED_PROXIES):
        yield Error(
            f"TRUSTED_PROXIES covers {' and '.join(trusted)}: anyone could claim any client address.",
            hint="List the addresses of your own proxies only.",
            id="portal.E013",
        )
    if callers := _everything(settings.GATEWAY_NETWORKS):
        yield Warning(
            f"GATEWAY_NETWORKS covers {' and '.join(callers)}: anyone may try keys at the gateway.",
            hint="List the networks of your own proxies and services only.",
            id="portal.W002",
        )


@register(Tags.security, "portal")
def mail(**kwargs: Any) -> Iterator[CheckMessage]:
    backend = settings.MAILERS["default"]["BACKEND"]
    if _is_public() and any(f".{name}." in backend for name in _BACKENDS_THAT_DELIVER_NOTHING):
        yield Error(
            "EMAIL_URL delivers nothing: nobody could sign up, and sign-in codes would stand in the log.",
            hint="Name a mail server, e.g. EMAIL_URL=smtp+tls://user:password@mail.example.com:587",
            id="portal.E014",
        )
    address = parseaddr(settings.DEFAULT_FROM_EMAIL)[1]
    try:
        validate_email(address)
    except ValidationError:
        yield Error(
            "DEFAULT_FROM_EMAIL has no e-mail address in it.",
            hint="E.g. DEFAULT_FROM_EMAIL='Acme API <api@example.com>'",
            id="portal.E015",
        )
    else:
        if _is_public() and is_loopback(address.rpartition("@")[2]):
            yield Warning(
                f"DEFAULT_FROM_EMAIL is {address}: most mail servers refuse such a sender.",
                hint="Use an address of your own domain.",
                id="portal.W004",
            )


@register("portal")
def database(**kwargs: Any) -> Iterator[CheckMessage]:
    if _is_public() and settings.DATABASE_URL.startswith("sqlite"):
        yield Warning(
            "DATABASE_URL is SQLite: right for one machine and light use, and one writer at a time.",
            hint="For production, DATABASE_URL=postgres://user:password@host:5432/latchkey",
            id="portal.W003",
        )


@register("portal")
def rate_windows(**kwargs: Any) -> Iterator[CheckMessage]:
    if settings.VALKEY_URL:
        from usage.valkey import plain_url  # here: a portal without Valkey need not load its client

        try:
            plain_url(settings.VALKEY_URL)
        except ValueError:
            # Not the library's own sentence: it could quote the password.
            yield Error(
                "VALKEY_URL is not the URL of a Valkey server.",
                hint="E.g. VALKEY_URL=valkey://:password@valkey.internal:6379/0 (valkeys:// with TLS).",
                id="portal.E017",
            )
    elif settings.WORKERS > 1:
        yield Warning(
            f"{settings.WORKERS} workers and no VALKEY_URL: each has rate windows of its own, so that a key "
            f"may make {settings.WORKERS} times the calls of its rate.",
            hint="Set VALKEY_URL, or serve with one worker. The same goes for several hosts.",
            id="portal.W005",
        )
    if not 1 <= settings.WORKERS <= MAX_WORKERS:
        yield Error(
            f"WORKERS={settings.WORKERS} is not a number of processes.",
            hint=f"Use 1 to {MAX_WORKERS}; 1 is the default, and the number of cores is plenty.",
            id="portal.E018",
        )


@register("portal")
def refusals(**kwargs: Any) -> Iterator[CheckMessage]:
    least, most = REFUSAL_DAYS
    if not least <= settings.USAGE_REFUSAL_DAYS <= most:
        yield Error(
            f"USAGE_REFUSAL_DAYS is {settings.USAGE_REFUSAL_DAYS}: refused calls are listed for so long, "
            "with the callers' addresses.",
            hint=f"Use {least} to {most} days; 30 is the default. Sums are kept for good.",
            id="portal.E021",
        )


@register("portal")
def sources(**kwargs: Any) -> Iterator[CheckMessage]:
    least, most = SOURCE_DAYS
    if not least <= settings.SOURCES_DAYS <= most:
        yield Error(
            f"SOURCES_DAYS={settings.SOURCES_DAYS}: so long after its last call an address is forgotten.",
            hint=f"Use {least} to {most} days; 90 is the default.",
            id="portal.E027",
        )


@register("portal")
def journal_dir(**kwargs: Any) -> Iterator[CheckMessage]:
    folder = Path(settings.USAGE_JOURNAL_DIR)
    if not folder.is_absolute():
        what = f"USAGE_JOURNAL_DIR={folder} is relative: each process might write somewhere else."
    elif not _can_make_files_in(folder):
        what = f"USAGE_JOURNAL_DIR={folder} cannot be written to: no call could be allowed."
    else:
        return
    yield Error(
        what,
        hint="Use the absolute path of a local folder that the server's user may write to.",
        id="portal.E016",
    )


@register("portal")
def journal_bounds(**kwargs: Any) -> Iterator[CheckMessage]:
    least = MIN_JOURNAL_BYTES * min(max(settings.WORKERS, 1), MAX_WORKERS)
    if least > settings.USAGE_JOURNAL_MAX_BYTES:
        yield Error(
            f"USAGE_JOURNAL_MAX_BYTES={settings.USAGE_JOURNAL_MAX_BYTES} is too little: a moment without a "
            "drain would refuse every call.",
            hint=f"Use at least {least:,} bytes (16 MiB a worker); 8 GiB is the default.",
            id="portal.E019",
        )
    if not 0 <= settings.USAGE_JOURNAL_KEEP_DAYS <= MAX_KEEP_DAYS:
        yield Error(
            f"USAGE_JOURNAL_KEEP_DAYS={settings.USAGE_JOURNAL_KEEP_DAYS} is not a number of days.",
            hint="Drained journals are kept for so many days; 35 is the default, and 0 keeps none.",
            id="portal.E020",
        )


@register("portal")
def resources(**kwargs: Any) -> Iterator[CheckMessage]:
    if not 1 <= settings.USAGE_RESOURCES <= MAX_RESOURCES:
        yield Error(
            f"USAGE_RESOURCES={settings.USAGE_RESOURCES} is no bound for the labels of one organization and "
            "meter.",
            hint=f"Use 1 to {MAX_RESOURCES}; 1000 is the default, and a page lists them all.",
            id="portal.E022",
        )


@register("portal")
def usage_detail(**kwargs: Any) -> Iterator[CheckMessage]:
    days = settings.USAGE_DETAIL_DAYS
    if days > MAX_KEEP_DAYS:
        yield Error(
            f"USAGE_DETAIL_DAYS={days} goes back to before there were dates.",
            hint="Use 0 to keep hours for ever; 400 is the default.",
            id="portal.E023",
        )
    elif days and days < DETAIL_DAYS:
        yield Error(
            f"USAGE_DETAIL_DAYS={settings.USAGE_DETAIL_DAYS}: hours would go that late events still change, "
            "and that rebuild_usage compares.",
            hint=f"Use {DETAIL_DAYS} days or more, or 0 to keep hours for ever; 400 is the default.",
            id="portal.E023",
        )


@register("portal")
def billing(**kwargs: Any) -> Iterator[CheckMessage]:
    if not 0 <= settings.BILLING_GRACE_HOURS <= MAX_GRACE_HOURS:
        yield Error(
            f"BILLING_GRACE_HOURS={settings.BILLING_GRACE_HOURS} is no time to wait before closing a month.",
            hint=f"Use 0 to {MAX_GRACE_HOURS} hours; 24 is the default.",
            id="portal.E041",
        )


@register("portal")
def github_keys(**kwargs: Any) -> Iterator[CheckMessage]:
    try:
        parts = urlsplit(settings.GITHUB_KEYS_URL)
        host = parts.hostname or ""
        safe = bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
    except ValueError:
        safe = False
    if not safe:
        yield Error(
            "GITHUB_KEYS_URL must begin with https://: who changes what comes from there can revoke keys.",
            hint="Leave it at its default, or name a mirror of yours by https.",
            id="portal.E036",
        )


def _can_make_files_in(folder: Path) -> bool:
    """May this process write in `folder`, or make it if it is not there yet?"""
    try:
        while not folder.exists():
            folder = folder.parent
        may = os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
        return may and folder.is_dir()
    except OSError:
        return False
