"""What another plan would change for an organization, told before anybody decides: costs and policy.

It makes the change in a transaction, reads what comes of it and rolls it back, so that it is refused what the
act would be refused and estimates with the very same code. Nothing of it is kept.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from django.db import transaction

from keys.models import Organization, Policy
from usage import meters, reports
from usage.billing import forecast, money, plans, price_words, subscriptions, terms
from usage.billing.lines import currency_of, usage
from usage.billing.periods import Period
from usage.meters import Meter
from usage.models import PlanVersion, Subscription

_NAMES: Final = ("id", "slug", "name", "created_at")  # of a policy: they hold nobody to anything


class Change(NamedTuple):
    """One thing before and after, in lines of text; `same` where nothing changes."""

    label: str
    before: list[str]
    after: list[str]

    @property
    def same(self) -> bool:
        return self.before == self.after


class Preview(NamedTuple):
    """What subscribing would do. Amounts are text with their currency."""

    start: dt.datetime
    before: Subscription | None  # what it has been on in that hour
    month: Period  # the current one
    prices: list[Change]  # the monthly fee first
    policy: list[Change]  # only what differs
    policy_name: Change
    estimate: Change  # of the current month


def preview(
    organization: Organization, version: PlanVersion, *, at: dt.datetime | None = None, now: dt.datetime
) -> Preview:
    """What `subscriptions.subscribe` would do now. Raises Refused as it does."""
    month, known = Period.of(now), meters.read()
    through = min(reports.complete_through() or now, now)
    with transaction.atomic():
        estimate = _estimate(organization, month, through)
        subscription, before = subscriptions.change(organization, version, at=at, now=now)
        estimated = _estimate(organization, month, through)
        transaction.set_rollback(True)
    new = PlanVersion.objects.select_related("plan__policy").get(pk=version.pk)
    return Preview(
        start=subscription.start,
        before=before,
        month=month,
        prices=[
            Change("Monthly fee", [_fee(before.version)] if before else ["none"], [_fee(new)]),
            *_prices(before.version if before else None, new, known),
        ],
        policy=_policy(organization.policy, new.plan.policy),
        policy_name=Change("Policy", [organization.policy.name], [new.plan.policy.name]),
        estimate=Change("Estimate", [estimate], [estimated]),
    )


def _estimate(organization: Organization, month: Period, through: dt.datetime) -> str:
    agreed = terms.of_period(month, organization)
    mine = agreed.get(organization.pk, {})
    currency = currency_of(mine)
    if currency is None:
        return "no plan, no cost"
    used = next((each.used for each in usage(month, agreed, organization)), [])
    return f"{money.as_text(forecast.whole_month(used, mine, month, through), currency)} {currency}"


def _fee(version: PlanVersion) -> str:
    return f"{money.as_text(version.fee, version.currency)} {version.currency}"


def _prices(before: PlanVersion | None, after: PlanVersion, known: Mapping[str, Meter]) -> list[Change]:
    old = _said(before, known) if before else {}
    new = _said(after, known)
    return [
        Change(" ".join(name).rstrip(), _price(name, old), _price(name, new))
        for name in sorted(old.keys() | new.keys())
    ]


def _price(name: tuple[str, str], said: Mapping[tuple[str, str], list[str]]) -> list[str]:
    """A resource without a price of its own has that of all others."""
    general = [f"as {name[0]}"] if (name[0], "") in said else ["free"]
    return said.get(name, general)


def _said(version: PlanVersion, known: Mapping[str, Meter]) -> dict[tuple[str, str], list[str]]:
    found = price_words.words(map(plans.spec_of, version.prices.all()), known, version.currency)
    return {
        (each.title, each.resource): [
            *([f"{each.included} a month included"] if each.included else []),
            *each.lines,
        ]
        for each in found
    }


def _policy(before: Policy, after: Policy) -> list[Change]:
    fields = [field for field in Policy._meta.concrete_fields if field.name not in _NAMES]
    changes = [
        Change(
            str(field.verbose_name).capitalize(),
            _words(getattr(before, field.name)),
            _words(getattr(after, field.name)),
        )
        for field in fields
    ]
    changes.append(Change("Scopes", _scopes(before), _scopes(after)))
    return [each for each in changes if not each.same]


def _scopes(policy: Policy) -> list[str]:
    if policy.all_scopes:
        return ["all but the portal's own"]
    return sorted(policy.scopes.values_list("name", flat=True)) or ["none"]


def _words(value: Any) -> list[str]:  # Any: whatever a policy's field holds
    match value:
        case bool():
            return ["yes" if value else "no"]
        case list():
            return [str(each) for each in value] or ["none"]
        case None | "":
            return ["none"]
        case _:
            return [str(value)]
