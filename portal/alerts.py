"""Billing alerts as pages show them, and told by mail: each once a month, by whichever worker is first.

What a month comes to is added up as on the billing page. An alert is noted as told in the transaction that
queues its mail, so that none is lost and none is sent twice.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import NamedTuple

from django import forms
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.urls import reverse

from keys.models import Organization
from keys.permissions import Role
from portal import billing_pages, outbox
from portal.billing_pages import Bill
from portal.pages import QuotaRow, percent, quota_rows
from usage import meters
from usage.billing import Period, alerts, money
from usage.models import AlertKind, BillingAlert

# Late in a month's last day something may be reached that is counted only in the next.
LOOK_BACK = dt.timedelta(days=2)


class AlertState(NamedTuple):
    """One alert, and how far the month is."""

    alert: BillingAlert
    words: str
    now: str  # what it stands at; empty where nothing can be compared
    share: str
    reached: bool
    told_at: dt.datetime | None  # in this month


class AlertForm(forms.Form):
    """What to be told of. Which of the numbers are needed is for `usage.billing.alerts` to say."""

    kind = forms.ChoiceField(
        label="When the month reaches",
        choices=[
            (AlertKind.AMOUNT.value, "An amount"),
            (AlertKind.BUDGET.value, "A percentage of a budget"),
            (AlertKind.QUOTA.value, "A percentage of a monthly quota"),
        ],
    )
    amount = forms.DecimalField(
        required=False,
        max_digits=20,
        help_text="For one month, fees included.",
        widget=forms.TextInput({"inputmode": "decimal", "autocomplete": "off"}),
    )
    percent = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=alerts.MAX_PERCENT,
        label="Percentage",
        help_text="Of the amount or quota, e.g. 80.",
        widget=forms.TextInput({"inputmode": "numeric", "autocomplete": "off"}),
    )


def states(
    organization: Organization, bill: Bill, quotas: Sequence[QuotaRow], period: Period
) -> list[AlertState]:
    """The organization's alerts, with what its month comes to so far; one query."""
    return [_state(each, bill, quotas, period) for each in organization.billing_alerts.all()]


def tell(now: dt.datetime, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Queue a mail for each alert that is reached and not yet told of this month; how many. `stop` is asked
    before each organization."""
    told = 0
    periods = dict.fromkeys([Period.of(now - LOOK_BACK), Period.of(now)])
    for period in periods:
        waiting = BillingAlert.objects.filter(created_at__lt=period.end)
        waiting = waiting.filter(Q(told_period=None) | Q(told_period__lt=period.first_day))
        organizations = Organization.objects.filter(pk__in=waiting.values("organization"), suspended_at=None)
        for organization in organizations.select_related("policy").order_by("pk"):
            if stop():
                return told
            mine = waiting.filter(organization=organization).select_related("created_by")
            told += _tell(organization, list(mine), period, now)
    return told


def _tell(organization: Organization, waiting: list[BillingAlert], period: Period, now: dt.datetime) -> int:
    bill = billing_pages.bill_of(organization, period, meters.read())
    # Of an earlier month's quotas nothing is known any more.
    quotas = quota_rows(organization, now) if period == Period.of(now) else []
    found = [_state(each, bill, quotas, period) for each in waiting]
    return sum(_tell_of(organization, each, period, now) for each in found if each.reached)


def _tell_of(organization: Organization, state: AlertState, period: Period, now: dt.datetime) -> int:
    alert = state.alert
    with transaction.atomic():
        rows = BillingAlert.objects.filter(pk=alert.pk)
        rows = rows.filter(Q(told_period=None) | Q(told_period__lt=period.first_day))
        if not rows.update(told_period=period.first_day, told_at=now):
            return 0
        url = reverse("billing", kwargs={"organization": organization.slug})
        outbox.queue(
            f"billing-alert-{alert.pk}-{period}",
            "billing_alert",
            {
                "organization": organization.name,
                "words": state.words,
                "now": state.now,
                "month": f"{period.start:%B %Y}",
                "url": f"{settings.PORTAL_URL}{url}",
            },
            outbox.recipients(organization, [Role.OWNER, Role.BILLING], also=[alert.created_by]),
            now,
            organization=organization,
        )
    return 1


def _state(alert: BillingAlert, bill: Bill, quotas: Sequence[QuotaRow], period: Period) -> AlertState:
    if alert.kind == AlertKind.QUOTA:
        stands, part, whole = _fullest(quotas)
        reached = bool(whole) and part * 100 >= alert.percent * whole
        share = percent(part, whole)
    else:
        known = bill.currency == alert.currency
        part = money.in_minor(bill.total, bill.currency) if known else 0
        stands = f"{bill.total} {bill.currency}" if known else ""
        wanted = alert.amount * (alert.percent if alert.kind == AlertKind.BUDGET else 100)
        reached = known and part * 100 >= wanted
        share = percent(max(part, 0), alert.amount) if known else "—"
    told = alert.told_at if alert.told_period == period.first_day else None
    return AlertState(alert, alerts.words(alert), stands, share, reached, told)


def _fullest(quotas: Sequence[QuotaRow]) -> tuple[str, int, int]:
    """Of the monthly quotas the one of which most is used: how it stands, what is used, and its limit."""
    monthly = [each for each in quotas if each.unit == "month"]
    if not monthly:
        return "", 0, 0
    row = max(monthly, key=lambda each: each.used / each.limit)
    return f"{row.used:,} of {row.limit:,} {row.meter}", row.used, row.limit
