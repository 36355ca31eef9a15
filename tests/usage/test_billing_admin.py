"""Plans and subscriptions in the admin: each change one audited act, and what is published out of reach."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.lifecycle import Invalid
from keys.lifecycle.organizations import standard_policy
from keys.models import AuditEvent, Organization
from portal.models import User
from tests import builders
from tests.builders import text
from tests.keys.admin_forms import once, one_act
from tests.threads import at_once
from usage import meters
from usage.billing import price_text, subscriptions
from usage.models import BillingAccount, Credit, Plan, PlanVersion, Subscription

pytestmark = pytest.mark.django_db


def page(model: str, name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:usage_{model}_{name}", args=args)


def test_a_plan_is_made_priced_published_and_then_only_read(admin: Client, sam: User) -> None:
    policy = standard_policy()
    with one_act("plan.created", sam):
        admin.post(page("plan", "add"), {"slug": "basic", "name": "Basic", "policy": policy.pk})
    plan = Plan.objects.get()
    prices = "requests per_unit 0.0100 included=10\nrequests resource=big package 5 of=1000"
    draft = {"plan": plan.pk, "currency": "USD", "fee": "49.00", "prices": prices}
    with one_act("plan.version_drafted", sam):
        admin.post(page("planversion", "add"), draft)
    version = PlanVersion.objects.get()
    assert version.fee == 4900
    with one_act("plan.version_edited", sam):
        admin.post(page("planversion", "change", version.pk), draft | {"fee": "50"})
    chosen = {"action": "publish", "_selected_action": [version.pk]}
    assert "never changes" in text(admin.post(page("planversion"), chosen))
    with one_act("plan.published", sam):
        admin.post(page("planversion"), chosen | {"confirmed": "yes"})
    shown = text(admin.get(page("planversion", "change", version.pk)))
    assert "requests per_unit 0.01 included=10" in shown
    assert "50.00" in shown
    with one_act("plan.version_drafted", sam):
        admin.post(
            page("planversion"), {"action": "copy", "_selected_action": [version.pk], "confirmed": "yes"}
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"currency": "XYZ"},
        {"currency": ""},
        {"fee": "-1"},
        {"fee": "x"},
        {"prices": "nothing per_unit 1"},
        {"prices": "requests"},
        {"prices": "requests per_unit x"},
        {"prices": 'requests "per_unit 1'},
        {"prices": "requests package 1 of=1.5"},
        {"prices": "requests per_unit 1 included=" + "9" * 60},
        {"prices": "requests per_unit 1 included=NaN"},
        {"prices": "requests volume 5=1"},
        {"prices": "a" * 2**20},
        {"prices": "requests per_unit 1\0"},
    ],
)
def test_what_is_no_version_is_an_error_of_the_form(admin: Client, fields: dict[str, str]) -> None:
    plan = Plan.objects.create(
        slug="basic", name="Basic", policy=standard_policy(), created_at=timezone.now()
    )
    before = AuditEvent.objects.count()
    draft = {"plan": plan.pk, "currency": "USD", "fee": "1", "prices": ""}
    assert admin.post(page("planversion", "add"), draft | fields).status_code in (200, 400)
    assert AuditEvent.objects.count() == before
    assert not PlanVersion.objects.exists()


def test_an_organization_is_subscribed_and_cancelled(admin: Client, sam: User) -> None:
    acme, version = builders.organization("acme"), builders.version("basic")
    at = (timezone.now() + dt.timedelta(days=2)).astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    asked = {
        "organization": acme.pk,
        "version": version.pk,
        "at_0": f"{at:%Y-%m-%d}",
        "at_1": f"{at:%H:%M:%S}",
        "at": f"{at:%Y-%m-%d %H:%M:%S}",
    }
    assert "Nothing has been changed yet" in text(admin.post(page("subscription", "add"), asked))
    assert not Subscription.objects.exists()
    with one_act("subscription.started", sam):
        admin.post(page("subscription", "add"), asked | {"confirmed": "yes", "seen": "0"})
    subscription = Subscription.objects.get()
    assert subscription.start == at
    assert admin.get(page("subscription", "change", subscription.pk)).status_code == 200
    assert "later subscription" not in text(admin.get(page("subscription")))
    chosen = {"action": "cancel", "_selected_action": [subscription.pk], "confirmed": "yes"}
    with one_act("subscription.ended", sam):
        admin.post(page("subscription"), chosen)


def test_what_a_plan_changes_is_shown_before_anything_is(admin: Client) -> None:
    acme = builders.organization("acme")
    month = timezone.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    builders.subscription(acme, builders.version("basic", fee=100, requests={"unit_price": "0.5"}), month)
    grand = builders.version("grand", fee=4900, requests={"unit_price": "0.125", "included": 1000})
    policy = lifecycle.create_policy(
        lifecycle.command_actor(), slug="grand", name="Grand", quotas=["7/day"], now=timezone.now()
    )
    Plan.objects.filter(slug="grand").update(policy=policy)
    before = AuditEvent.objects.count()
    shown = text(
        admin.post(page("subscription", "add"), {"organization": acme.pk, "version": grand.pk, "at": ""})
    )
    for words in ("49.00 USD", "0.5 USD a request", "0.125 USD a request", "1,000 a month included", "7/day"):
        assert words in shown
    assert [each.version.plan.slug for each in Subscription.objects.all()] == ["basic"]
    assert AuditEvent.objects.count() == before


def test_cancelling_shows_what_it_changes_and_ends_in_the_hour_that_was_shown(admin: Client) -> None:
    acme = builders.organization("acme")
    month = timezone.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    version = builders.version("basic", fee=4900, requests={"unit_price": "0.5"})
    running = builders.subscription(acme, version, month)
    before = AuditEvent.objects.count()
    chosen = {"action": "cancel", "_selected_action": [running.pk]}
    shown = admin.post(page("subscription"), chosen)
    hour = subscriptions.next_hour(timezone.now())
    for words in ("49.00 USD", "0.5 USD a request", "ends on", "estimated", "Nothing has been changed yet"):
        assert words in text(shown)
    running.refresh_from_db()
    assert (running.end, AuditEvent.objects.count()) == (None, before)
    assert f'name="at" value="{hour:%Y-%m-%d %H}:00:00"' in text(shown)

    earlier = hour - dt.timedelta(hours=1)
    confirmed = chosen | {"confirmed": "yes"}
    for junk in ("x", "\0", "9" * 2**20):
        assert admin.post(page("subscription"), confirmed | {"at": junk}).status_code == 400
    admin.post(page("subscription"), confirmed | {"at": f"{earlier:%Y-%m-%d %H}:00:00"})
    running.refresh_from_db()
    assert running.end == max(earlier, month)
    assert "earlier end already" in text(admin.post(page("subscription"), chosen))


def test_what_a_plan_puts_keys_outside_of_is_shown_with_the_keys(admin: Client) -> None:
    acme = builders.organization("acme")
    key = builders.key(acme, name="Forever", expires_at=None).key
    policy = lifecycle.create_policy(
        lifecycle.command_actor(), slug="grand", name="Grand", expiry_required=True, now=timezone.now()
    )
    version = builders.version("grand")
    Plan.objects.filter(slug="grand").update(policy=policy)
    asked = {"organization": acme.pk, "version": version.pk, "at": ""}
    shown = text(admin.post(page("subscription", "add"), asked))
    assert "1 key would be outside the policy" in shown
    assert key.public_id in shown


@pytest.mark.parametrize(
    "fields",
    [
        {"at": "x"},
        {"at": "2026-06-01 00:30"},
        {"at": "1999-01-01 00:00"},
        {"at": "9999-12-31 23:00"},
        {"organization": "0"},
        {"version": "x"},
        {"seen": "-1"},
        {"seen": "9" * 40},
        {"at": "a" * 2**20},
    ],
)
@pytest.mark.parametrize("confirmed", [{}, {"confirmed": "yes"}])
def test_what_is_no_subscription_is_an_error_of_the_form(
    admin: Client, fields: dict[str, str], confirmed: dict[str, str]
) -> None:
    acme, version = builders.organization("acme"), builders.version("basic")
    asked = {"organization": acme.pk, "version": version.pk, "at": ""} | fields | confirmed
    assert admin.post(page("subscription", "add"), asked).status_code in (200, 400)
    assert not Subscription.objects.exists()


def test_a_plan_that_was_changed_since_it_was_shown_is_not_replaced(admin: Client) -> None:
    acme, version = builders.organization("acme"), builders.version("basic")
    builders.subscription(acme, builders.version("other"), timezone.now() - dt.timedelta(hours=3))
    asked = {"organization": acme.pk, "version": version.pk, "at": "", "confirmed": "yes", "seen": "0"}
    assert "changed meanwhile" in text(admin.post(page("subscription", "add"), asked))
    assert Subscription.objects.count() == 1


def test_an_organizations_page_has_its_plan_and_whom_to_bill(admin: Client) -> None:
    acme = builders.organization("acme")
    url = reverse("admin:keys_organization_change", args=[acme.pk])
    shown = text(admin.get(url))
    assert f"{page('subscription', 'add')}?organization={acme.pk}" in shown
    assert "Say whom to bill" in shown
    later = timezone.now() + dt.timedelta(days=3)
    builders.subscription(acme, builders.version("basic"), timezone.now() - dt.timedelta(hours=3), later)
    builders.subscription(acme, builders.version("grand"), later)
    BillingAccount.objects.create(organization=acme, name="Acme <Inc.>")
    shown = text(admin.get(url))
    assert "Basic 1 since" in shown
    assert "on Grand 1" in shown
    assert "Acme &lt;Inc.&gt;" in shown
    assert admin.get(page("subscription") + f"?organization__id__exact={acme.pk}").status_code == 200
    assert admin.get(page("subscription", "add") + f"?organization={acme.pk}").status_code == 200


def test_a_billing_account_is_kept_with_its_ids(admin: Client, sam: User) -> None:
    acme = builders.organization("acme")
    asked = {"organization": acme.pk, "email": "bills@example.com", "stripe_customer": "cus_1"}
    with one_act("billing_account.edited", sam):
        admin.post(page("billingaccount", "add"), asked)
    assert BillingAccount.objects.get().stripe_customer == "cus_1"
    before = AuditEvent.objects.count()
    admin.post(page("billingaccount", "change", acme.pk), asked | {"email": "nobody"})
    assert AuditEvent.objects.count() == before


def test_staff_without_the_permission_are_refused(client: Client) -> None:
    builders.signed_in(client, builders.user("mia", is_staff=True))
    for model in ("plan", "planversion", "subscription", "billingaccount"):
        assert client.get(page(model)).status_code == 403
        assert client.post(page(model, "add"), {}).status_code == 403


@pytest.mark.parametrize(
    "line",
    [
        "requests per_unit 0.002 included=1000",
        "hours 'resource=a b' package 5 of=0.5 included=1.25",
        "hours graduated 0.5=0.02 5000=0.01 rest=0.005",
    ],
)
def test_a_price_is_written_as_it_was_read(db: None, line: str) -> None:
    builders.meter("hours", decimals=3)
    known = meters.read()
    assert price_text.written(price_text.parse(line, known), known) == line


def test_a_price_of_no_meter_is_refused(db: None) -> None:
    with pytest.raises(Invalid, match="no meter"):
        price_text.parse("x per_unit 1", meters.read())


def credit(admin: Client, of: Organization, **fields: str) -> dict[str, Any]:
    asked = {"organization": of.pk, "month": "2026-05", "value": "12.50", "currency": "USD"}
    return asked | {"reason": "Sorry", "once": once(admin, page("credit", "add"))} | fields


def test_a_credit_is_given_with_a_reason_and_then_only_read(admin: Client, sam: User) -> None:
    asked = credit(admin, builders.organization("acme"))
    with one_act("organization.credited", sam):
        admin.post(page("credit", "add"), asked)
    given = Credit.objects.get()
    assert (given.amount, given.original_period, given.given_by) == (
        1250,
        dt.date(2026, 5, 1),
        sam.get_username(),
    )
    shown = page("credit", "change", given.pk)
    assert "12.50 USD" in text(admin.get(shown))
    assert admin.post(shown, asked | {"value": "1", "reason": "Other"}).status_code == 403
    assert admin.post(page("credit", "delete", given.pk), {"post": "yes"}).status_code == 403
    assert Credit.objects.get().amount == 1250


def test_a_credit_form_that_is_sent_twice_gives_one_credit(admin: Client) -> None:
    asked = credit(admin, builders.organization("acme"))
    admin.post(page("credit", "add"), asked)
    before = AuditEvent.objects.count()
    again = admin.post(page("credit", "add"), asked | {"value": "13"})
    assert "has given its credit already: 12.50 USD to Acme." in text(again)
    assert "open for too long" in text(admin.post(page("credit", "add"), asked | {"once": "x"}))
    assert (Credit.objects.count(), AuditEvent.objects.count()) == (1, before)
    admin.post(page("credit", "add"), credit(admin, Organization.objects.get()))
    assert Credit.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_credit_form_that_is_sent_twice_at_once_gives_one_credit(admin: Client) -> None:
    asked = credit(admin, builders.organization("acme"))
    answers = at_once([lambda: admin.post(page("credit", "add"), asked)] * 2)
    assert sorted(getattr(each, "status_code", 0) for each in answers) == [200, 302]
    assert Credit.objects.count() == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"month": "2026-13"},
        {"month": "9000-01"},
        {"month": "\0"},
        {"value": "1.005"},
        {"value": "0"},
        {"value": "NaN"},
        {"value": "1" * 40},
        {"value": "1e15"},
        {"currency": "xx"},
        {"reason": ""},
        {"reason": "x" * 2**20},
        {"organization": "1; --"},
        {"once": ""},
        {"once": "\0"},
        {"once": "x" * 2**20},
    ],
)
def test_what_is_no_credit_is_an_error_of_the_form(admin: Client, fields: dict[str, str]) -> None:
    asked = credit(admin, builders.organization("acme"))
    before = AuditEvent.objects.count()
    assert admin.post(page("credit", "add"), asked | fields).status_code in (200, 400)
    assert AuditEvent.objects.count() == before
    assert not Credit.objects.exists()
