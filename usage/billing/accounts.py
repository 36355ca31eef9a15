"""Whom to bill: an organization's billing contact, tax id, and its id in each billing system.

One act, audited; it alone writes billing accounts, and decides nothing about money. `ids` reads them for
exports.
"""

import datetime as dt

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
from usage.models import BillingAccount

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


def edit_account(
    actor: Actor, organization: Organization, *, now: dt.datetime, **fields: str
) -> BillingAccount:
    """Change some of `FIELDS`; an organization without an account gets one. Staff only."""
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
        if changes or made:
            audit.append(
                "billing_account.edited",
                actor=actor,
                at=now,
                organization=organization,
                data={"changes": changes},
            )
    return account


def ids(field: str) -> dict[str, str]:
    """Organization's slug → its id in one billing system (one of `FIELDS`), of all that have one."""
    rows = BillingAccount.objects.exclude(**{field: ""})
    return dict(rows.values_list("organization__slug", field))
