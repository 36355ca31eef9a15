"""Billing alerts that customers set: of an amount, of a share of a budget, of a share of a monthly quota.

One function an act, one transaction, audited. Whether one is reached and who is told is for `portal.alerts`.
"""

import datetime as dt
from decimal import Decimal
from typing import Final

from django.db import transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict, Invalid
from keys.lifecycle.actors import require, user_id
from keys.lifecycle.locks import lock_organization
from keys.models import Organization
from keys.permissions import Act
from usage.billing import money
from usage.billing.plans import MAX_MINOR
from usage.models import AlertKind, BillingAlert

MAX_ALERTS: Final = 20  # of an organization
MAX_PERCENT: Final = 1000


def add(
    actor: Actor,
    organization: Organization,
    *,
    kind: str,
    amount: Decimal | None = None,
    currency: str = "",
    percent: int | None = None,
    now: dt.datetime,
) -> BillingAlert:
    """Set an alert. AMOUNT and BUDGET take an amount in a currency, BUDGET and QUOTA a percentage."""
    require(actor, Act.EDIT_ALERTS, organization)
    if kind not in AlertKind.values:
        raise Invalid("There is no such alert.", "kind")
    quota, share = kind == AlertKind.QUOTA, kind != AlertKind.AMOUNT
    minor = 0 if quota else _clean_amount(amount, currency)
    percent = _clean_percent(percent, 100 if quota else MAX_PERCENT) if share else 0
    with transaction.atomic():
        organization = lock_organization(organization)
        if organization.billing_alerts.count() >= MAX_ALERTS:
            raise Conflict(f"An organization has at most {MAX_ALERTS} alerts; remove one first.")
        alert, made = BillingAlert.objects.get_or_create(
            organization=organization,
            kind=kind,
            amount=minor,
            currency="" if quota else currency,
            percent=percent,
            defaults={"created_at": now, "created_by_id": user_id(actor)},
        )
        if not made:
            raise Conflict("There is this alert already.")
        _append(actor, alert, "billing_alert.added", now)
    return alert


def remove(actor: Actor, alert: BillingAlert, *, now: dt.datetime) -> None:
    """Take an alert away; one that is gone already stays so."""
    require(actor, Act.EDIT_ALERTS, alert.organization)
    with transaction.atomic():
        lock_organization(alert.organization)
        deleted, _ = BillingAlert.objects.filter(pk=alert.pk).delete()
        if deleted:
            _append(actor, alert, "billing_alert.removed", now)


def words(alert: BillingAlert) -> str:
    """What it waits for, in words that end a sentence."""
    if alert.kind == AlertKind.QUOTA:
        return f"{alert.percent}% of a monthly quota"
    amount = f"{money.as_text(alert.amount, alert.currency)} {alert.currency}"
    return amount if alert.kind == AlertKind.AMOUNT else f"{alert.percent}% of a budget of {amount}"


def _append(actor: Actor, alert: BillingAlert, act: str, now: dt.datetime) -> None:
    data = {"alert": words(alert)}
    audit.append(act, actor=actor, at=now, organization=alert.organization, data=data)


def _clean_amount(amount: Decimal | None, currency: str) -> int:
    if currency not in money.DIGITS:
        raise Invalid("Without a plan nothing has an amount; choose a share of a quota.", "kind")
    if amount is None or not amount.is_finite() or not 0 < amount <= MAX_MINOR:
        raise Invalid("Give an amount above 0, e.g. 500.00.", "amount")
    minor = money.minor(amount, currency)
    if not 0 < minor <= MAX_MINOR or Decimal(money.as_text(minor, currency)) != amount:
        raise Invalid(f"{currency} has {money.DIGITS[currency]} decimals.", "amount")
    return minor


def _clean_percent(percent: int | None, most: int) -> int:
    if percent is None or not 1 <= percent <= most:
        raise Invalid(f"Give a percentage from 1 to {most}.", "percent")
    return percent
