"""Plans and subscriptions in the admin: each change one audited act, and what is published out of reach."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys.lifecycle import Invalid
from keys.lifecycle.organizations import standard_policy
from keys.models import AuditEvent
from portal.models import User
from tests import builders
from tests.keys.admin_forms import one_act, text
from usage import meters
from usage.billing import price_text
from usage.models import BillingAccount, Plan, PlanVersion, Subscription

pytestmark = pytest.mark.django_db


def page(model: str, name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:usage_{model}_{name}", args=args)


@pytest.fixture
def sam(db: None) -> User:
    return builders.staff()


@pytest.fixture
def admin(client: Client, sam: User) -> Client:
    return builders.signed_in(client, sam)


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
    with one_act("subscription.started", sam):
        admin.post(page("subscription", "add"), asked)
    subscription = Subscription.objects.get()
    assert subscription.start == at
    assert admin.get(page("subscription", "change", subscription.pk)).status_code == 200
    assert "later subscription" not in text(admin.get(page("subscription")))
    chosen = {"action": "cancel", "_selected_action": [subscription.pk], "confirmed": "yes"}
    with one_act("subscription.ended", sam):
        admin.post(page("subscription"), chosen)


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
