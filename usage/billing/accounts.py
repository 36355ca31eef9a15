"""Whom to bill: an organization's billing contact, tax id, and its id in each billing system.

One act, audited; it alone writes billing accounts, and decides nothing about money. A closed month keeps them
as they were, so that a later change changes neither its statement nor its exports.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from itertools import batched

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Invalid
from keys.lifecycle.actors import require_staff
from keys.lifecycle.locks import lock_organization
from keys.lifecycle.rules import clean_text
from keys.models import Organization
from usage import watermark
from usage.models import BillingAccount, BillingDetails, ClosedPeriod, StatementAccount, StatementLine

CHUNK = 2000  # rows read and written at once
# What may be set, the words for it, and how long it may be.
FIELDS = {
    "name": ("The name", 200),
    "email": ("The e-mail address", 254),
    "address": ("The address", 500),
    "tax_id": ("The tax id", 50),
    "stripe_customer": ("The Stripe customer", 100),
    "lago_subscription": ("The Lago subscription", 100),
    "openmeter_subject": ("The OpenMeter subject", 100),
}
IDS = ("stripe_customer", "lago_subscription", "openmeter_subject")


def edit_account(
    actor: Actor, organization: Organization, *, now: dt.datetime, **fields: str
) -> BillingAccount:
    """Change some of `FIELDS`; an organization without an account gets one. Staff only.

    An id in a billing system that is given counts for closed months that had none, too."""
    require_staff(actor)
    cleaned = {}
    for field, value in fields.items():
        label, maximum = FIELDS[field]
        cleaned[field] = clean_text(value, field=field, label=label, maximum=maximum, required=False)
    if cleaned.get("email"):
        try:
            validate_email(cleaned["email"])
        except ValidationError:
            raise Invalid("This is not an e-mail address.", "email") from None
    with transaction.atomic():
        organization = lock_organization(organization)
        account, made = BillingAccount.objects.get_or_create(organization=organization)
        changes = {
            field: [getattr(account, field), value]
            for field, value in cleaned.items()
            if getattr(account, field) != value
        }
        if changes:
            for field, value in cleaned.items():
                setattr(account, field, value)
            account.save(update_fields=list(changes))
        if _fill_in(organization, cleaned) or changes or made:
            audit.append(
                "billing_account.edited",
                actor=actor,
                at=now,
                organization=organization,
                data={"changes": changes},
            )
    return account


def _fill_in(organization: Organization, given: Mapping[str, str]) -> int:
    """Of closed months: how many had no such id and have it now."""
    rows = StatementAccount.objects.filter(organization=organization.slug)
    return sum(
        rows.filter(**{field: ""}).update(**{field: given[field]}) for field in IDS if given.get(field)
    )


def freeze(closed: ClosedPeriod) -> None:
    """Keep whom each organization's lines are billed to, of a month that is being closed."""
    billed = StatementLine.objects.filter(closed=closed).values("organization")
    names = ("slug", "name", *(f"billing_account__{field}" for field in FIELDS))
    rows = Organization.objects.filter(slug__in=billed).order_by("slug").values_list(*names)
    for some in batched(rows.iterator(chunk_size=CHUNK), CHUNK):
        StatementAccount.objects.bulk_create(
            StatementAccount(closed=closed, organization=slug, **_details(name, found))
            for slug, name, *found in some
        )


def _details(organization_name: str, found: Iterable[str | None]) -> dict[str, str]:
    details = {field: value or "" for field, value in zip(FIELDS, found, strict=True)}
    return details | {"name": details["name"] or organization_name}


def billed_to(organization: Organization, closed: ClosedPeriod) -> BillingDetails | None:
    """Whom a closed month was billed to."""
    return StatementAccount.objects.filter(closed=closed, organization=organization.slug).first()


def billed_to_now(organization: Organization) -> tuple[BillingDetails, dt.datetime | None]:
    """The same as it is now; and, to spare a query, until when everything is counted."""
    names = [f"billing_account__{field}" for field in FIELDS]
    found = Organization.objects.values_list(*names, *watermark.columns()).get(pk=organization.pk)
    details, through = found[: len(FIELDS)], found[len(FIELDS) :]
    filled = {field: value or "" for field, value in zip(FIELDS, details, strict=True)}
    return BillingAccount(organization=organization, **filled), watermark.told(*through)


def ids(field: str, closed: ClosedPeriod | None = None) -> dict[str, str]:
    """Organization's slug → its id in one billing system (one of `IDS`), of all that have one: now, or of a
    closed month."""
    if closed is None:
        accounts = BillingAccount.objects.exclude(**{field: ""})
        return dict(accounts.values_list("organization__slug", field))
    frozen = StatementAccount.objects.filter(closed=closed).exclude(**{field: ""})
    return dict(frozen.values_list("organization", field))
