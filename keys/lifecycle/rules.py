"""What an act's input must be: cleaned text, and an organization's policy applied to it.

Each `clean_*` function returns the value to store or raises Invalid with a sentence and a field. They
read the policy and write nothing.
"""

import datetime as dt
import unicodedata
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from django.conf import settings
from django.db.models import Q, QuerySet

from keys import networks as network_rules
from keys import quotas as quota_rules
from keys import rates as rate_rules
from keys import tokens
from keys.audit import Actor
from keys.compliance import GRACE, SENTENCES, SETTINGS, Facts, Rule, Terms, broken, longest_days
from keys.lifecycle.actors import is_trusted
from keys.lifecycle.refusals import Conflict, Invalid
from keys.models import Environment, Key, Organization, Scope
from keys.scopes import STAFF_ONLY

MAX_METADATA = 20
MAX_METADATA_KEY = 40
MAX_METADATA_VALUE = 500


class Choice(Enum):
    DEFAULT = "default"
    UNSET = "unset"


DEFAULT: Final = Choice.DEFAULT  # an expiry that was not chosen
UNSET: Final = Choice.UNSET  # a field that an edit leaves alone

type Expiry = dt.datetime | Choice | None


def clean_text(value: Any, *, field: str, label: str, maximum: int, required: bool = True) -> str:
    """One line of text: trimmed, NFC, without control characters, lone surrogates, or a key."""
    if not isinstance(value, str):
        raise Invalid(f"{label} must be text.", field)
    if len(value) > 4 * maximum + 100:  # before any work on a megabyte
        raise Invalid(f"{label} can have at most {maximum} characters.", field)
    text = unicodedata.normalize("NFC", value).strip()
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise Invalid(f"{label} has characters that cannot be shown.", field)
    if required and not text:
        raise Invalid(f"{label} is missing.", field)
    if tokens.redact(text) != text:  # it would stand in the history for ever
        raise Invalid(f"{label} holds what looks like an API key; leave the key out.", field)
    if len(text) > maximum:
        raise Invalid(f"{label} can have at most {maximum} characters.", field)
    return text


def clean_environment(value: str) -> str:
    if value not in Environment.values:
        raise Invalid("Environment must be live or test.", "environment")
    return value


def allowed_scopes(organization: Organization, *, staff: bool = False) -> QuerySet[Scope]:
    """The scopes that a key of this organization may be given; `staff` may also grant the staff-only, and
    those that others get by approval."""
    policy = organization.policy
    by_approval = policy.approval_scopes.values("pk")
    let = Q() if policy.all_scopes else Q(pk__in=policy.scopes.values("pk"))
    if staff:
        if not policy.all_scopes:
            let |= Q(name__in=STAFF_ONLY) | Q(pk__in=by_approval)
        return Scope.objects.filter(let)
    return Scope.objects.filter(let).exclude(name__in=STAFF_ONLY).exclude(pk__in=by_approval)


def clean_scopes(
    organization: Organization, names: Iterable[str], actor: Actor, held: Iterable[str] = ()
) -> list[Scope]:
    """The named scopes. Those that the key already `held` by staff's grant may be kept by anyone."""
    wanted = {str(name) for name in names}
    if not wanted:
        return []
    allowed = {s.name: s for s in allowed_scopes(organization, staff=is_trusted(actor))}
    kept = wanted & set(held) - allowed.keys()
    if kept:
        allowed |= {s.name: s for s in Scope.objects.filter(name__in=kept)}
    refused = sorted(wanted - allowed.keys())
    approvable = set(organization.policy.approval_scopes.values_list("name", flat=True)) if refused else set()
    if refused and approvable.issuperset(refused):
        raise Invalid(
            f"The provider approves each key that gets {', '.join(refused)}: ask for it on the key's page.",
            "scopes",
        )
    if refused:
        shown = ", ".join(name[:64] for name in refused[:5]).encode("utf-8", "replace").decode()
        raise Invalid(f"Not a scope that this organization's keys may hold: {shown}.", "scopes")
    return [allowed[name] for name in sorted(wanted)]


def longest_expiry(organization: Organization, now: dt.datetime) -> dt.datetime | None:
    """The latest expiry that may be chosen now; None: any, or none at all."""
    days = longest_days(organization.policy)
    return None if days is None else now + dt.timedelta(days=days)


def default_expiry(organization: Organization, now: dt.datetime) -> dt.datetime | None:
    """What a key gets whose maker does not choose."""
    days = organization.policy.default_lifetime_days or settings.KEY_DEFAULT_LIFETIME_DAYS
    longest = longest_days(organization.policy)
    return now + dt.timedelta(days=min(days, longest) if longest else days)


def clean_expiry(organization: Organization, value: Expiry, now: dt.datetime) -> dt.datetime | None:
    """The expiry to store, within the policy; `None` means never."""
    if value is DEFAULT:
        return default_expiry(organization, now)
    longest = longest_expiry(organization, now)
    if value is None:
        if longest is not None:
            raise Invalid(f"Keys here must expire by {longest:%-d %B %Y}.", "expires_at")
        if organization.policy.expiry_required:
            raise Invalid("Keys here must have an expiry.", "expires_at")
        return None
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise Invalid("An expiry is a date and time with a time zone.", "expires_at")
    if value <= now:
        raise Invalid("The expiry is in the past.", "expires_at")
    if longest is not None and value > longest + GRACE:
        raise Invalid(f"Keys here can live until {longest:%-d %B %Y} at most.", "expires_at")
    if value.year > 9000:
        raise Invalid("That expiry is too far away; choose no expiry instead.", "expires_at")
    return value


def broken_settings(key: Key, now: dt.datetime) -> list[Rule]:
    """The rules of its policy that the key's settings break; an old secret is none of them."""
    rules = broken(Terms.of(key.organization.policy), Facts.of(key), now)
    return [rule for rule in rules if rule in SETTINGS]


def kept_expiry(key: Key, now: dt.datetime) -> dt.datetime | None:
    """A key's expiry where it is not chosen anew: as it is, or what the policy lets if that is sooner."""
    rules = broken_settings(key, now)
    if Rule.LIFETIME in rules:
        return longest_expiry(key.organization, now)
    return default_expiry(key.organization, now) if Rule.EXPIRY in rules else key.expires_at


def require_compliance(key: Key, now: dt.datetime) -> None:
    """Raise Conflict with what is to be mended if the key is outside its policy."""
    rules = broken_settings(key, now)
    if rules:
        sentences = " ".join(SENTENCES[rule] for rule in rules)
        raise Conflict(f"This key is outside its organization's policy; edit it first. {sentences}")


def clean_networks(organization: Organization, environment: str, values: Iterable[str]) -> list[str]:
    """Canonical CIDR networks, without repeats, in the order given."""
    cleaned: dict[str, None] = {}
    for value in values:
        try:
            cleaned[network_rules.normalise(str(value))] = None
        except ValueError as error:
            raise Invalid(str(error), "networks") from None
        if len(cleaned) > network_rules.MAX_NETWORKS:
            raise Invalid(f"A key can have at most {network_rules.MAX_NETWORKS} networks.", "networks")
    if not cleaned and environment == Environment.LIVE and organization.policy.networks_required:
        raise Invalid("Live keys here must be limited to networks.", "networks")
    return list(cleaned)


def clean_rates(values: Iterable[str]) -> list[str]:
    """Rates in canonical text, the shortest window first, one for each window."""
    try:
        rates = sorted((rate_rules.parse(str(value)) for value in values), key=lambda rate: rate.seconds)
    except ValueError as error:
        raise Invalid(str(error), "rates") from None
    if len({rate.seconds for rate in rates}) != len(rates):
        raise Invalid("Give one rate for each window.", "rates")
    return [rate.text for rate in rates]


def meter_exists(name: str) -> bool:
    """Is anything counted under this name? What is, `usage` alone knows, and says so at its start."""
    return name == quota_rules.CALLS


def clean_quotas(values: Iterable[str]) -> list[str]:
    """Quotas in canonical text, by meter and then by period, one for each of both."""
    try:
        quotas = sorted((quota_rules.parse(str(value)) for value in values), key=lambda quota: quota[1:])
    except ValueError as error:
        raise Invalid(str(error), "quotas") from None
    if len({quota[1:] for quota in quotas}) != len(quotas):
        raise Invalid("Give one quota for each meter and period.", "quotas")
    if len(quotas) > quota_rules.MAX_QUOTAS:
        raise Invalid(f"There can be at most {quota_rules.MAX_QUOTAS} quotas.", "quotas")
    for quota in quotas:
        if not meter_exists(quota.meter):  # nothing would ever be counted against it
            raise Invalid(f"There is no meter {quota.meter}.", "quotas")
    return [quota.text for quota in quotas]


def clean_metadata(value: Mapping[str, str] | None) -> dict[str, str]:
    """The customer's own labels: at most 20 of text → text."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid("Metadata must be names with values.", "metadata")
    if len(value) > MAX_METADATA:
        raise Invalid(f"Metadata can have at most {MAX_METADATA} entries.", "metadata")
    return {
        clean_text(name, field="metadata", label="A metadata name", maximum=MAX_METADATA_KEY): clean_text(
            text, field="metadata", label="A metadata value", maximum=MAX_METADATA_VALUE, required=False
        )
        for name, text in value.items()
    }
