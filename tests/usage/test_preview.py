"""What another plan would change is told by making the change and taking it back; nothing of it stays."""

import datetime as dt

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.lifecycle import Conflict
from keys.models import AuditEvent, Organization
from tests import builders
from tests.threads import at_once
from usage.billing import Period, forecast, money, subscriptions, terms
from usage.billing.lines import usage
from usage.billing.preview import Change, preview, preview_end
from usage.models import Price, Subscription

NOW = builders.NOW  # 15 June, 12:00
JUNE = Period.of(NOW)
HOUR = dt.timedelta(hours=1)
STAFF = lifecycle.command_actor()


@pytest.fixture
def acme(db: None) -> Organization:
    acme = builders.organization("acme")
    key = builders.key(acme).key
    for day in range(14):
        builders.rollup(
            organization=acme,
            hour=JUNE.start + day * 24 * HOUR,
            key=key,
            meter="requests",
            outcome="VALID",
            booked_period=JUNE.first_day,
            calls=100,
            quantity=100,
        )
    return acme


def kept() -> tuple[int, list[tuple[object, ...]]]:
    rows = Subscription.objects.order_by("pk").values_list("pk", "start", "end", "policy_applied_at")
    return AuditEvent.objects.count(), list(rows)


def test_fee_prices_policy_and_the_months_estimate_are_compared(acme: Organization) -> None:
    basic = builders.version("basic", fee=100, requests={"unit_price": "1"})
    builders.subscription(acme, basic, JUNE.start)
    found = preview(acme, builders.version("grand", fee=900, requests={"unit_price": "2"}), now=NOW)
    assert found.start == NOW + HOUR
    assert found.before is not None
    assert found.prices == [
        Change("Monthly fee", ["1.00 USD"], ["9.00 USD"]),
        Change("Requests", ["1 USD a request"], ["2 USD a request"]),
    ]
    assert found.policy == []
    assert not found.estimate.same


def test_without_a_plan_everything_has_been_free(acme: Organization) -> None:
    found = preview(acme, builders.version("basic", requests={"unit_price": "1"}), now=NOW)
    assert found.before is None
    assert found.prices[1].before == ["free"]
    assert found.estimate.before == ["no plan, no cost"]


def test_a_resource_that_loses_its_own_price_has_that_of_all_others(acme: Organization) -> None:
    basic = builders.version("basic", requests={"unit_price": "1"})
    Price.objects.create(version=basic, meter="requests", resource="large", unit_price="9")
    builders.subscription(acme, basic, JUNE.start)
    found = preview(acme, builders.version("grand", requests={"unit_price": "2"}), now=NOW)
    assert found.prices[-1] == Change("Requests large", ["9 USD a request"], ["as Requests"])


def test_what_the_act_would_refuse_the_preview_refuses(acme: Organization) -> None:
    builders.subscription(acme, builders.version("basic"), JUNE.start)
    yen = builders.version("yen", currency="JPY")
    with pytest.raises(Conflict, match="USD"):
        preview(acme, yen, now=NOW)
    assert preview(acme, yen, at=JUNE.end, now=NOW).estimate.same


def test_an_end_is_told_as_it_comes_and_taken_back(acme: Organization) -> None:
    version = builders.version("basic", fee=900, requests={"unit_price": "1"})
    running = builders.subscription(acme, version, JUNE.start)
    before = kept()
    told = preview_end(running, now=NOW)
    assert kept() == before
    assert (told.at, told.never) == (NOW + HOUR, False)
    assert told.prices == [
        Change("Monthly fee", ["9.00 USD"], ["none"]),
        Change("Requests", ["1 USD a request"], ["free"]),
    ]
    subscriptions.cancel(STAFF, running, now=NOW)
    agreed = terms.of_period(JUNE, acme)
    used = next(each.used for each in usage(JUNE, agreed, acme))
    estimate = money.as_text(forecast.whole_month(used, agreed[acme.pk], JUNE, NOW), "USD")
    assert told.estimate.after == [f"{estimate} USD"]
    with pytest.raises(Conflict, match="earlier end"):
        preview_end(running, now=NOW)


def test_one_that_has_not_begun_would_never_begin(acme: Organization) -> None:
    later = builders.subscription(acme, builders.version("basic"), JUNE.end)
    told = preview_end(later, now=NOW)
    assert (told.at, told.never, told.estimate.same) == (JUNE.end, True, True)


@given(hours=st.integers(-300, 300), fee=st.integers(0, 10**6), price=st.integers(0, 10**4))
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_preview_keeps_nothing_and_tells_what_comes(
    acme: Organization, hours: int, fee: int, price: int
) -> None:
    if not Subscription.objects.exists():
        builders.subscription(acme, builders.version("basic", requests={"unit_price": "0.01"}), JUNE.start)
    version = builders.version("grand", fee=fee, requests={"unit_price": str(price)})
    before = kept()
    at = NOW + hours * HOUR
    told = preview(acme, version, at=at, now=NOW)
    assert kept() == before

    made, replaced = subscriptions.change(acme, version, at=at, now=NOW)
    agreed = terms.of_period(JUNE, acme)
    used = next(each.used for each in usage(JUNE, agreed, acme))
    estimate = money.as_text(forecast.whole_month(used, agreed[acme.pk], JUNE, NOW), "USD")
    made.delete()
    if replaced is not None:
        Subscription.objects.filter(pk=replaced.pk).update(end=None)
    assert told.estimate.after == [f"{estimate} USD"]


@pytest.mark.django_db(transaction=True)
def test_of_two_who_subscribe_at_once_one_stays_in_force() -> None:
    acme = builders.organization("acme")
    versions = [builders.version(slug) for slug in ("basic", "grand")]

    def act(number: int, seen: int | None) -> object:
        return subscriptions.subscribe(STAFF, acme, versions[number], seen=seen, now=NOW)

    made = at_once([lambda: act(0, None), lambda: act(1, None)])
    assert all(isinstance(each, Subscription) for each in made)
    running = [each for each in Subscription.objects.all() if each.end is None or each.end > each.start]
    assert len(running) == 1
    policy = running[0].version.plan.policy
    acme.refresh_from_db()
    assert acme.policy == policy

    seen = running[0].pk
    outcomes = at_once([lambda: act(0, seen), lambda: act(1, seen)])
    assert sorted(type(each).__name__ for each in outcomes) == ["Conflict", "Subscription"]
