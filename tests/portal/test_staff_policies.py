"""Requests for scopes that staff decide on their page, and the keys that are outside their policy."""

import datetime as dt
import io
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import AuditEvent, Organization, ScopeRequest
from portal import staff_policies
from portal.models import User
from portal.staff_policies import outsiders
from tests import builders
from usage.models import Subscription

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def admin(client: Client) -> Client:
    return builders.signed_in(client, builders.staff("sam"))


def decide(client: Client, asked: ScopeRequest, **fields: Any) -> Any:
    return client.post(reverse("staff_decide", args=[asked.pk]), fields, follow=True)


# --- requests ------------------------------------------------------------------------------------


def test_a_request_is_approved_in_place(admin: Client, acme: Organization) -> None:
    asked = builders.scope_request(acme)
    assert "Refunds in the shop" in admin.get(reverse("staff_requests")).content.decode()
    shown = decide(admin, asked, decision="approve", note="Until June")
    assert shown.status_code == 200
    assert "Nobody waits" in shown.content.decode()
    assert [scope.name for scope in asked.key.scopes.all()] == ["orders:refund"]
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.act, event.actor_label) == ("key.scope_approved", "sam@example.com")
    asked.refresh_from_db()
    assert asked.note == "Until June"


def test_a_denial_needs_a_note_which_the_customer_reads(admin: Client, acme: Organization) -> None:
    asked = builders.scope_request(acme)
    assert "Say why it is denied" in decide(admin, asked, decision="deny").content.decode()
    asked.refresh_from_db()
    assert asked.state == "pending"
    decide(admin, asked, decision="deny", note="Not for shops")
    asked.refresh_from_db()
    assert (asked.state, asked.note) == ("denied", "Not for shops")
    assert not asked.key.scopes.exists()


def test_a_request_is_decided_once(admin: Client, acme: Organization) -> None:
    asked = builders.scope_request(acme)
    decide(admin, asked, decision="approve")
    assert "decided already" in decide(admin, asked, decision="deny", note="No").content.decode()
    assert asked.key.scopes.exists()


def test_staff_who_may_not_decide_cannot(client: Client, acme: Organization) -> None:
    builders.signed_in(client, builders.user("mia", is_staff=True))
    asked = builders.scope_request(acme)
    assert decide(client, asked, decision="approve").status_code == 403
    assert "Approve" not in client.get(reverse("staff_requests")).content.decode()
    asked.refresh_from_db()
    assert asked.state == "pending"


@pytest.mark.parametrize("note", ["\x00", "x" * 201, "x" * 2**20, "\u202e"])
@pytest.mark.parametrize("decision", ["deny", "both", ""])
def test_no_junk_in_a_decision_is_an_error_of_the_server(
    admin: Client, acme: Organization, decision: str, note: str
) -> None:
    assert decide(admin, builders.scope_request(acme), decision=decision, note=note).status_code < 500
    assert admin.post(reverse("staff_decide", args=[10**17]), {"decision": "deny"}).status_code == 404


# --- keys outside ---------------------------------------------------------------------------------


def test_keys_outside_their_policy_are_listed_with_what_is_outside(admin: Client, acme: Organization) -> None:
    inside = builders.key(acme, name="Inside", networks=["10.0.0.0/8"]).key
    builders.key(acme, name="Roams")
    gone = builders.key(acme, name="Gone").key
    lifecycle.revoke_key(lifecycle.command_actor(), gone, now=timezone.now())
    lifecycle.edit_policy(lifecycle.command_actor(), acme.policy, networks_required=True, now=timezone.now())
    shown = admin.get(reverse("staff_outside"), {"policy": acme.policy.slug})
    assert [(row.key.name, len(row.sentences)) for row in shown.context["page"].keys] == [("Roams", 1)]
    assert "may be used from anywhere" in shown.content.decode()
    assert inside.name not in shown.content.decode()
    for junk in ("\x00", "9" * 40, "x", "-1", "0"):
        assert admin.get(reverse("staff_outside"), {"before": junk, "policy": junk}).status_code == 200


def test_a_policys_keys_are_looked_at_a_lot_at_a_time_without_missing_one(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [builders.key(acme, networks=[] if n % 3 else ["10.0.0.0/8"]).key for n in range(11)]
    acme.policy.networks_required = True
    acme.policy.save(update_fields=["networks_required"])
    monkeypatch.setattr(staff_policies, "LOT", 4)
    monkeypatch.setattr(staff_policies, "SHOWN", 2)
    seen, looked_at, before = [], 0, None
    while True:
        page = outsiders(acme.policy, before, timezone.now())
        seen += [row.key for row in page.keys]
        looked_at += page.looked_at
        before = page.next
        if before is None:
            break
    assert seen == [key for n, key in reversed(list(enumerate(keys))) if n % 3]
    assert looked_at == 11


def test_the_page_takes_the_same_queries_however_many_keys_there_are(
    admin: Client, acme: Organization
) -> None:
    acme.policy.networks_required = True
    acme.policy.save(update_fields=["networks_required"])

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(reverse("staff_outside"), {"policy": acme.policy.slug}).status_code == 200
        return len(captured)

    builders.key(acme, environment="test")
    queries()
    few = queries()
    for n in range(5):
        builders.key(acme, environment="test", name=f"Key {n}")
    assert queries() == few


# --- by command -----------------------------------------------------------------------------------


def test_the_command_says_what_another_plan_would_change_and_changes_nothing(acme: Organization) -> None:
    builders.key(acme, name="Roams", expires_at=timezone.now() + dt.timedelta(days=300))
    version = builders.version("gold", fee=4900, requests={"unit_price": "0.01"})
    strict = lifecycle.create_policy(
        lifecycle.command_actor(), slug="strict", name="Strict", max_lifetime_days=30, now=timezone.now()
    )
    version.plan.policy = strict
    version.plan.save(update_fields=["policy"])
    events, said = AuditEvent.objects.count(), io.StringIO()
    arguments = ("create_organization", "acme", "--name", "Renamed", "--plan", "gold", "--dry-run")
    call_command(*arguments, stderr=said)
    assert "It would be on the plan gold from" in said.getvalue()
    assert "Policy: Standard -> Strict" in said.getvalue()
    assert "1 key would be outside the policy, and go on working." in said.getvalue()
    assert "Roams: expire too late" in said.getvalue()
    acme.refresh_from_db()
    assert acme.name == "Acme"
    assert not Subscription.objects.exists()
    assert AuditEvent.objects.count() == events
    said = io.StringIO()
    call_command(
        "create_organization", "new", "--name", "New", "--dry-run", "--owner", "x@y.org", stderr=said
    )
    assert "it would be made" in said.getvalue()
    assert not Organization.objects.filter(slug="new").exists()
    assert not User.objects.filter(email="x@y.org").exists()
