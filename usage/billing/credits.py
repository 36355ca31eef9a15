"""Credits: what staff take off an organization's bill for some month, with a reason, for good.

One act, audited; it alone writes credits. A credit is a correction without a key on the statement of the
earliest month that is open; it is never edited or deleted, and one in error is taken back by another.
"""

import datetime as dt
from decimal import Decimal

from django.db import transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Invalid
from keys.lifecycle.actors import require_staff
from keys.lifecycle.locks import lock_organization
from keys.lifecycle.rules import clean_text
from keys.models import Organization
from usage import counting
from usage.billing import money, periods, terms
from usage.billing.lines import currency_of
from usage.billing.periods import Period
from usage.billing.plans import MAX_MINOR
from usage.models import Credit

REASON_LENGTH = 200


def give(
    actor: Actor,
    organization: Organization,
    *,
    original: Period,
    amount: int,
    currency: str,
    reason: str,
    now: dt.datetime,
) -> Credit:
    """Credit an organization for a month: `amount` minor units off its bill, or, below 0, onto it.

    Staff only. The currency is the one in which the month was billed, if it was. The customer sees the
    reason.
    """
    require_staff(actor)
    reason = clean_text(reason, field="reason", label="The reason", maximum=REASON_LENGTH)
    if not amount or abs(amount) > MAX_MINOR:
        raise Invalid("The amount is not 0, and at most 10 to the power of 15 minor units.", "amount")
    if currency not in money.DIGITS:
        raise Invalid("This is not a currency of ISO 4217, e.g. EUR.", "currency")
    if original.start > now:
        raise Invalid(f"{original} has not begun.", "original_period")
    with transaction.atomic():
        organization = lock_organization(organization)
        counting.share()  # the month that carries it cannot be cut before it is written
        billed_in = currency_of(terms.of_period(original, organization).get(organization.pk, {}))
        if billed_in not in (None, currency):
            raise Invalid(f"{original} is billed in {billed_in}.", "currency")
        booked = max(periods.earliest_open(), original)
        credit = Credit.objects.create(
            organization=organization,
            original_period=original.first_day,
            booked_period=booked.first_day,
            amount=amount,
            currency=currency,
            reason=reason,
            given_at=now,
            given_by=actor.label[:254],
        )
        audit.append(
            "organization.credited",
            actor=actor,
            at=now,
            organization=organization,
            data={
                "amount": f"{money.as_text(amount, currency)} {currency}",
                "period": str(original),
                "booked": str(booked),
                "reason": reason,
            },
        )
    return credit


def in_minor(amount: Decimal, currency: str) -> int:
    """An amount as a person wrote it, in minor units. Raises Invalid where the currency has no such one."""
    if currency not in money.DIGITS:
        raise Invalid("This is not a currency of ISO 4217, e.g. EUR.", "currency")
    found = money.minor(amount, currency)
    if Decimal(money.as_text(found, currency)) != amount:
        raise Invalid(f"{currency} has {money.DIGITS[currency]} decimals.", "amount")
    return found
