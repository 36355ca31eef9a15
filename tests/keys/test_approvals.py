"""Scopes by approval: nobody gets one at any door before staff have approved it, and then the key has it."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.audit import Actor
from keys.compliance import Facts, Rule, Terms, broken
from keys.models import AuditEvent, Key, Organization, RequestState, ScopeRequest
from keys.permissions import Role
from portal.models import User
from tests import builders, threads
from tests.builders import NOW, text
from tests.keys.admin_forms import act_on, page

pytestmark = pytest.mark.django_db
COMMAND = lifecycle.command_actor()


@pytest.fixture
def acme() -> Organization:
    policy = lifecycle.create_policy(
        COMMAND, slug="careful", name="Careful", approval_scopes=[builders.scope("orders:refund")], now=NOW
    )
    return builders.organization("acme", owner=builders.user("alice"), policy=policy, now=NOW)


@pytest.fixture
def alice(acme: Organization) -> Actor:
    membership = acme.memberships.get()
    return lifecycle.member_actor(membership.user, membership)


def held(key: Key) -> list[str]:
    return sorted(key.scopes.values_list("name", flat=True))


def ask(actor: Actor, key: Key, **fields: Any) -> ScopeRequest:
    wanted: dict[str, Any] = {"scope": "orders:refund", "reason": "Refunds", "now": NOW} | fields
    return lifecycle.request_scope(actor, key, **wanted)


def test_a_member_gets_it_neither_with_a_new_key_nor_by_an_edit(acme: Organization, alice: Actor) -> None:
    with pytest.raises(lifecycle.Invalid, match="ask for it on the key's page"):
        lifecycle.create_key(alice, acme, name="x", scopes=["orders:refund"], now=NOW)
    key = builders.key(acme, now=NOW).key
    with pytest.raises(lifecycle.Invalid):
        lifecycle.edit_key(alice, key, scopes=["orders:refund"], now=NOW)
    assert held(key) == []


def test_an_approval_gives_it_to_the_key_and_says_so(acme: Organization, alice: Actor, sam: User) -> None:
    key = builders.key(acme, scopes=("orders:read",), now=NOW).key
    request = ask(alice, key)
    assert held(key) == ["orders:read"]
    lifecycle.approve_scope(lifecycle.staff_actor(sam), request, note="For a year", now=NOW)
    assert held(key) == ["orders:read", "orders:refund"]
    event = AuditEvent.objects.latest("number")
    assert (event.act, event.actor_label, event.key) == ("key.scope_approved", sam.email, key)
    assert event.data == {"scope": "orders:refund", "note": "For a year"}
    request.refresh_from_db()
    assert (request.state, request.decided_at) == (RequestState.APPROVED, NOW)
    # It stays through edits by those who could not grant it, and it is within the policy.
    lifecycle.edit_key(alice, key, name="Renamed", scopes=["orders:refund"], now=NOW)
    assert held(key) == ["orders:refund"]
    lifecycle.edit_policy(COMMAND, acme.policy, all_scopes=False, now=NOW)
    acme.policy.refresh_from_db()
    assert Rule.SCOPES not in broken(Terms.of(acme.policy), Facts.of(key), NOW)


def test_a_denial_leaves_the_key_and_it_can_be_asked_for_again(
    acme: Organization, alice: Actor, sam: User
) -> None:
    key = builders.key(acme, now=NOW).key
    request = lifecycle.deny_scope(lifecycle.staff_actor(sam), ask(alice, key), note="Why?", now=NOW)
    assert (held(key), request.state) == ([], RequestState.DENIED)
    with pytest.raises(lifecycle.Conflict, match="decided already"):
        lifecycle.approve_scope(lifecycle.staff_actor(sam), request, now=NOW)
    assert ask(alice, key).state == RequestState.PENDING


def test_only_staff_decide(acme: Organization, alice: Actor) -> None:
    key = builders.key(acme, now=NOW).key
    request = ask(alice, key)
    for actor in (alice, lifecycle.key_actor(key)):
        for act in (lifecycle.approve_scope, lifecycle.deny_scope):
            with pytest.raises(lifecycle.Forbidden):
                act(actor, request, now=NOW)
    assert held(key) == []


def test_what_cannot_be_asked_for_is_refused(acme: Organization, alice: Actor) -> None:
    key = builders.key(acme, scopes=("orders:read",), now=NOW).key
    for scope in ("orders:read", "portal:verify", "", "\x00", "\ud800", "x" * 100_000):
        with pytest.raises(lifecycle.Invalid):
            ask(alice, key, scope=scope)
    for reason in ("", " ", "a\x00", "\ud800", "x" * 201):
        with pytest.raises(lifecycle.Invalid):
            ask(alice, key, reason=reason)
    ask(alice, key)
    with pytest.raises(lifecycle.Conflict, match="waiting"):
        ask(alice, key)
    other = builders.key(builders.organization("globex"), now=NOW).key
    with pytest.raises(lifecycle.Forbidden):
        ask(alice, other)
    assert ScopeRequest.objects.count() == 1


def test_an_approval_that_came_too_late_gives_nothing(acme: Organization, alice: Actor, sam: User) -> None:
    staff = lifecycle.staff_actor(sam)
    revoked, dropped = builders.key(acme, now=NOW).key, builders.key(acme, now=NOW).key
    first, second = ask(alice, revoked), ask(alice, dropped)
    lifecycle.revoke_key(alice, revoked, now=NOW)
    with pytest.raises(lifecycle.Conflict):
        lifecycle.approve_scope(staff, first, now=NOW)
    lifecycle.edit_policy(COMMAND, acme.policy, approval_scopes=[], now=NOW)
    with pytest.raises(lifecycle.Invalid):
        lifecycle.approve_scope(staff, second, now=NOW)
    assert held(revoked) + held(dropped) == []
    assert lifecycle.deny_scope(staff, first, now=NOW).state == RequestState.DENIED


@pytest.mark.django_db(transaction=True)
def test_of_two_decisions_at_once_one_counts(acme: Organization, alice: Actor, sam: User) -> None:
    key = builders.key(acme, now=NOW).key
    request, staff = ask(alice, key), lifecycle.staff_actor(sam)
    outcomes = threads.at_once(
        [
            lambda: lifecycle.approve_scope(staff, request, now=NOW),
            lambda: lifecycle.deny_scope(staff, request, now=NOW),
        ]
    )
    assert sum(isinstance(outcome, lifecycle.Conflict) for outcome in outcomes) == 1
    request.refresh_from_db()
    assert (held(key) == ["orders:refund"]) == (request.state == RequestState.APPROVED)


# --- pages ----------------------------------------------------------------------------------------


def test_a_member_asks_on_the_keys_page_and_sees_what_became_of_it(
    client: Client, acme: Organization, sam: User
) -> None:
    key = builders.key(acme).key
    builders.signed_in(client, acme.memberships.get().user)
    arguments = {"organization": "acme", "key_id": key.public_id}
    url, ask_url = reverse("key", kwargs=arguments), reverse("key_ask", kwargs=arguments)
    assert ask_url in text(client.get(url))
    assert "orders:refund" in text(client.get(reverse("key_new", args=["acme"])))
    for scope, reason in (("", ""), ("portal:verify", "x"), ("orders:refund", "a\x00")):
        assert client.post(ask_url, {"scope": scope, "reason": reason}).status_code == 200
    asked = client.post(ask_url, {"scope": "orders:refund", "reason": "Refunds"})
    assert asked.status_code == 302
    shown = text(client.get(url))
    assert "Waiting" in shown
    assert ask_url not in shown
    assert "Nothing to ask for" in text(client.get(ask_url))
    lifecycle.deny_scope(
        lifecycle.staff_actor(sam), ScopeRequest.objects.get(), note="Tell us more.", now=timezone.now()
    )
    assert "Tell us more." in text(client.get(url))


def test_a_viewer_is_not_offered_to_ask(client: Client, acme: Organization) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.VIEWER)
    key = builders.key(acme).key
    builders.signed_in(client, bob)
    assert "/ask/" not in text(client.get(reverse("key", args=["acme", key.public_id])))


def test_staff_decide_in_the_admin(client: Client, acme: Organization, alice: Actor, sam: User) -> None:
    first, second = builders.key(acme).key, builders.key(acme).key
    requests = [ask(alice, first), ask(alice, second)]
    builders.signed_in(client, sam)
    assert "Refunds" in text(client.get(page("scoperequest") + "?state__exact=pending"))
    assert client.get(page("scoperequest", "change", requests[0].pk)).status_code == 200
    asked = act_on(client, "scoperequest", "approve", requests[0])
    assert "orders:refund for Backend of Acme: Refunds" in text(asked)
    act_on(client, "scoperequest", "approve", requests[0], confirmed="yes", note="Fine")
    act_on(client, "scoperequest", "deny", requests[1], confirmed="yes", note="")
    assert (held(first), held(second)) == (["orders:refund"], [])
    again = act_on(client, "scoperequest", "approve", requests[1], confirmed="yes")
    assert again.status_code == 302
    assert held(second) == []


def test_staff_put_scopes_on_the_list_in_the_admin(client: Client, acme: Organization, sam: User) -> None:
    builders.signed_in(client, sam)
    scope = builders.scope("orders:void")
    form = {"name": "Careful", "slug": "careful", "all_scopes": "on", "approval_scopes": [scope.pk]}
    blank = ("default_lifetime_days", "max_lifetime_days", "idle_days", "rotate_days", "max_keys")
    sent: dict[str, Any] = form | dict.fromkeys((*blank, "rates", "quotas"), "")
    assert client.post(page("policy", "change", acme.policy.pk), sent).status_code == 302
    event = AuditEvent.objects.latest("number")
    assert event.data["changes"] == {"approval_scopes": [["orders:refund"], ["orders:void"]]}
