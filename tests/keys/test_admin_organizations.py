"""Organizations, members, scopes and policies in the admin: every write is one audited act."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from keys import lifecycle
from keys.models import AuditEvent, Membership, Organization, Policy, Scope
from keys.permissions import Role
from portal.models import User
from tests import builders
from tests.builders import text
from tests.keys.admin_forms import act_on, one_act, organization_form, page, shown

pytestmark = pytest.mark.django_db


# --- organizations and members --------------------------------------------------------------------


def test_adding_an_organization_with_its_owner(admin: Client, sam: User) -> None:
    alice, standard = builders.user("alice"), Policy.objects.get(slug="standard")
    form = {"name": "Acme", "slug": "acme", "policy": standard.pk, "owner": alice.pk, "external_customer": ""}
    with one_act("organization.created", sam):
        assert admin.post(page("organization", "add"), form).status_code == 302
    membership = Membership.objects.get()
    assert (membership.user, membership.role) == (alice, Role.OWNER.value)
    again = admin.post(page("organization", "add"), form)
    assert again.status_code == 200
    assert "already exists" in text(again)


@pytest.mark.parametrize("slug", ["Acme", "a--b", "é", "x" * 51, "", "\x00"])
def test_a_bad_slug_is_an_error_of_the_form(admin: Client, slug: str) -> None:
    form = {"name": "Acme", "slug": slug, "policy": Policy.objects.get().pk, "external_customer": ""}
    response = admin.post(page("organization", "add"), form)
    assert response.status_code == 200
    assert "errornote" in text(response)
    assert not Organization.objects.exists()


def test_an_organizations_slug_is_fixed(admin: Client, sam: User, acme: Organization) -> None:
    members = list(acme.memberships.all())
    with one_act("organization.edited", sam):
        form = organization_form(acme, members, name="Acme Ltd", slug="other")
        assert admin.post(page("organization", "change", acme.pk), form).status_code == 302
    acme.refresh_from_db()
    assert (acme.slug, acme.name) == ("acme", "Acme Ltd")


def test_members_are_added_and_their_roles_changed_inline(
    admin: Client, sam: User, acme: Organization
) -> None:
    bob = builders.user("bob")
    url = page("organization", "change", acme.pk)
    new = {
        "memberships-2-TOTAL_FORMS": 1,
        "memberships-2-0-organization": acme.pk,
        "memberships-2-0-user": bob.pk,
        "memberships-2-0-role": "viewer",
    }
    with one_act("member.added", sam):
        response = admin.post(url, organization_form(acme, list(acme.memberships.all()), **new))
    assert response.status_code == 302
    owner, viewer = acme.memberships.order_by("id")
    with one_act("member.role_changed", sam):
        form = organization_form(acme, [owner, viewer], **{"memberships-1-role": "admin"})
        assert admin.post(url, form).status_code == 302
    # The last owner stays one, until another has become one in the same form.
    form = organization_form(acme, [owner, viewer], **{"memberships-0-role": "viewer"})
    response = admin.post(url, form)
    assert response.status_code == 200
    assert "needs an owner" in text(response)
    swap = {"memberships-0-role": "viewer", "memberships-1-role": "owner"}
    assert admin.post(url, organization_form(acme, [owner, viewer], **swap)).status_code == 302
    assert [m.role for m in acme.memberships.order_by("id")] == ["viewer", "owner"]


def test_a_refusal_inline_undoes_the_whole_form(admin: Client, acme: Organization) -> None:
    events = AuditEvent.objects.count()
    members = list(acme.memberships.all())
    form = organization_form(acme, members, name="Other", **{"memberships-0-role": "viewer"})
    response = admin.post(page("organization", "change", acme.pk), form)
    assert "needs an owner" in text(response)
    acme.refresh_from_db()
    assert (acme.name, AuditEvent.objects.count()) == ("Acme", events)


def test_a_page_that_was_left_open_puts_nothing_back(admin: Client, acme: Organization) -> None:
    bob = builders.member(builders.user("bob"), acme, Role.ADMIN)
    url, command, now = page("organization", "change", acme.pk), lifecycle.command_actor(), timezone.now()
    mine = organization_form(acme, list(acme.memberships.all()), name="Acme & Co") | shown(admin.get(url))
    strict = lifecycle.create_policy(command, slug="strict", name="Strict", now=now)
    lifecycle.apply_policy(command, acme, strict, now=now)
    lifecycle.change_role(command, bob, Role.VIEWER, now=now)
    told = admin.post(url, mine)
    assert "Somebody changed this meanwhile" in text(told)
    acme.refresh_from_db()
    assert (acme.name, acme.policy) == ("Acme", strict)
    assert admin.post(url, mine | shown(told) | {"policy": strict.pk}).status_code == 302
    acme.refresh_from_db()
    bob.refresh_from_db()
    assert (acme.name, acme.policy, bob.role) == ("Acme & Co", strict, Role.VIEWER.value)


def test_memberships_are_added_changed_and_removed_on_their_own_pages(
    admin: Client, sam: User, acme: Organization
) -> None:
    bob = builders.user("bob")
    form = {"organization": acme.pk, "user": bob.pk, "role": "viewer"}
    with one_act("member.added", sam):
        assert admin.post(page("membership", "add"), form).status_code == 302
    assert admin.post(page("membership", "add"), form).status_code == 200
    member = Membership.objects.get(user=bob)
    with one_act("member.role_changed", sam):
        form = {"organization": acme.pk, "user": bob.pk, "role": "admin"}
        assert admin.post(page("membership", "change", member.pk), form).status_code == 302
    with one_act("member.removed", sam):
        act_on(admin, "membership", "remove", member, confirmed="yes")
    assert not Membership.objects.filter(user=bob).exists()


def test_suspending_and_resuming_an_organization(admin: Client, sam: User, acme: Organization) -> None:
    assert 'name="reason"' in text(act_on(admin, "organization", "suspend", acme))
    with one_act("organization.suspended", sam):
        act_on(admin, "organization", "suspend", acme, confirmed="yes", reason="Unpaid")
    acme.refresh_from_db()
    assert acme.suspended_reason == "Unpaid"
    assert 'name="reason"' not in text(act_on(admin, "organization", "resume", acme))
    with one_act("organization.resumed", sam):
        act_on(admin, "organization", "resume", acme, confirmed="yes")


def test_applying_a_policy(admin: Client, sam: User, acme: Organization) -> None:
    policy = lifecycle.create_policy(lifecycle.command_actor(), slug="gold", name="Gold", now=timezone.now())
    assert (
        act_on(admin, "organization", "apply_policy", acme, confirmed="yes", policy="abc").status_code == 400
    )
    with one_act("organization.policy_changed", sam):
        act_on(admin, "organization", "apply_policy", acme, confirmed="yes", policy=policy.pk)
    acme.refresh_from_db()
    assert acme.policy == policy


# --- scopes and policies --------------------------------------------------------------------------


def test_scopes_are_created_and_described(admin: Client, sam: User) -> None:
    with one_act("scope.created", sam):
        admin.post(page("scope", "add"), {"name": "orders:read", "description": "Read"})
    scope = Scope.objects.get(name="orders:read")
    with one_act("scope.edited", sam):
        admin.post(page("scope", "change", scope.pk), {"name": "other:read", "description": "Read orders"})
    scope.refresh_from_db()
    assert (scope.name, scope.description) == ("orders:read", "Read orders")


@pytest.mark.parametrize("name", ["orders", "Orders:read", "portal:all", "x" * 65, "a:\x00", ""])
def test_a_bad_scope_is_an_error_of_the_form(admin: Client, name: str) -> None:
    response = admin.post(page("scope", "add"), {"name": name, "description": ""})
    assert response.status_code == 200
    assert "errornote" in text(response)


def test_policies_are_created_and_edited(admin: Client, sam: User) -> None:
    scope = builders.scope("orders:read")
    builders.meter("input_tokens")
    form: dict[str, Any] = {
        "name": "Gold",
        "slug": "gold",
        "scopes": [scope.pk],
        "default_lifetime_days": "30",
        "max_lifetime_days": "60",
        "max_keys": "",
        "rates": "1000/hour\n10/second",
        "quotas": "5000000 input_tokens/month\n100000 requests/month",
    }
    with one_act("policy.created", sam):
        assert admin.post(page("policy", "add"), form).status_code == 302
    policy = Policy.objects.get(slug="gold")
    assert (policy.rates, policy.all_scopes) == (["10/second", "1000/hour"], False)
    assert policy.quotas == ["5000000 input_tokens/month", "100000/month"]
    assert list(policy.scopes.all()) == [scope]
    with one_act("policy.edited", sam):
        changed = form | {"slug": "silver", "max_keys": "5", "rates": "10/second\n1000/hour"}
        assert admin.post(page("policy", "change", policy.pk), changed).status_code == 302
    event = AuditEvent.objects.first()
    assert event is not None
    assert event.data == {"policy": "gold", "changes": {"max_keys": [None, 5]}}


@pytest.mark.parametrize(
    "fields",
    [
        {"default_lifetime_days": "61"},
        {"max_lifetime_days": "99999"},
        {"max_keys": "-1"},
        {"max_keys": "9" * 30},
        {"rates": "often"},
        {"quotas": "plenty"},
        {"quotas": "1/day\n2/day"},
        {"slug": "standard"},
        {"scopes": ["x"]},
    ],
)
def test_a_bad_policy_is_an_error_of_the_form(admin: Client, fields: dict[str, Any]) -> None:
    form = {"name": "Gold", "slug": "gold", "default_lifetime_days": "30", "max_lifetime_days": "60"}
    response = admin.post(page("policy", "add"), form | {"max_keys": "", "rates": ""} | fields)
    assert response.status_code == 200
    assert "errornote" in text(response)
    assert not Policy.objects.filter(slug="gold").exists()
