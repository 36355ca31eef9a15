"""What another plan, or none, would change for an organization, told before anybody decides.

It makes the change in a transaction, reads what comes of it and rolls it back, so that it is refused what the
act would be refused and estimates with the very same code. Nothing of it is kept.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from django.db import transaction

from keys import effects
from keys.effects import Effect
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
    keys: Effect  # what the policy would put outside it
    estimate: Change  # of the current month


class Ending(NamedTuple):
    """What cancelling would do."""

    at: dt.datetime
    never: bool  # it would not have begun
    month: Period  # the current one
    prices: list[Change]  # the monthly fee first
    estimate: Change  # of the current month


def preview(
    organization: Organization, version: PlanVersion, *, at: dt.datetime | None = None, now: dt.datetime
) -> Preview:
    """What `subscriptions.subscribe` would do now. Raises Refused as it does."""
    month = Period.of(now)
    (subscription, before), estimate = _tried(
        organization, now, lambda: subscriptions.change(organization, version, at=at, now=now)
    )
    new = PlanVersion.objects.select_related("plan__policy").get(pk=version.pk)
    return Preview(
        start=subscription.start,
        before=before,
        month=month,
        prices=_costs(before.version if before else None, new),
        policy=_policy(organization.policy, new.plan.policy),
        policy_name=Change("Policy", [organization.policy.name], [new.plan.policy.name]),
        keys=effects.of_choice(Organization.objects.filter(pk=organization.pk), new.plan.policy, now),
        estimate=estimate,
    )


def preview_end(subscription: Subscription, *, at: dt.datetime | None = None, now: dt.datetime) -> Ending:
    """What `subscriptions.cancel` would do now. Raises Refused as it does."""
    ended, estimate = _tried(
        subscription.organization, now, lambda: subscriptions.ended(subscription, at=at, now=now)
    )
    return Ending(
        at=ended.end or now,
        never=ended.end == ended.start,
        month=Period.of(now),
        prices=_costs(ended.version, None),
        estimate=estimate,
    )


def _tried[T](organization: Organization, now: dt.datetime, act: Callable[[], T]) -> tuple[T, Change]:
    """What comes of an act that is then taken back, and the month's estimate without and with it."""
    month, through = Period.of(now), min(reports.complete_through() or now, now)
    with transaction.atomic():
        before = _estimate(organization, month, through)
        done = act()
        after = _estimate(organization, month, through)
        transaction.set_rollback(True)
    return done, Change("Estimate", [before], [after])


def _estimate(organization: Organization, month: Period, through: dt.datetime) -> str:
    agreed = terms.of_period(month, organization)
    mine = agreed.get(organization.pk, {})
    currency = currency_of(mine)
    if currency is None:
        return "no plan, no cost"
    used = next((each.used for each in usage(month, agreed, organization)), [])
    return f"{money.as_text(forecast.whole_month(used, mine, month, through), currency)} {currency}"


def _costs(before: PlanVersion | None, after: PlanVersion | None) -> list[Change]:
    """The fee, and each price; without a plan there are none."""
    known = meters.read()
    old = _said(before, known) if before else {}
    new = _said(after, known) if after else {}
    return [
        Change("Monthly fee", _fee(before), _fee(after)),
        *(
            Change(" ".join(name).rstrip(), _price(name, old), _price(name, new))
            for name in sorted(old.keys() | new.keys())
        ),
    ]


def _fee(version: PlanVersion | None) -> list[str]:
    return [f"{money.as_text(version.fee, version.currency)} {version.currency}"] if version else ["none"]


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
