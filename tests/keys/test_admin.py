"""Keys' tables in the admin: every write is one audited act, refusals are form errors, no secret shows."""

import base64
import datetime as dt
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.admin.audit import ACTS
from keys.models import AuditEvent, Key, Membership, Organization, Policy, Scope, Secret
from keys.permissions import Role
from portal.models import User
from tests import builders

pytestmark = pytest.mark.django_db

MODELS = ["organization", "membership", "scope", "policy", "key", "auditevent"]
JUNK = ["\x00", "\ud800", "x" * 500_000, "%00%0a", "'\"><b>", "9" * 40]


@pytest.fixture
def sam() -> User:
    return builders.staff("sam")


@pytest.fixture
def admin(client: Client, sam: User) -> Client:
    return builders.signed_in(client, sam)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", builders.user("alice"))


def page(model: str, name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:keys_{model}_{name}", args=args)


def text(response: Any) -> str:
    content: bytes = response.content
    return content.decode()


@contextmanager
def one_act(act: str, sam: User) -> Iterator[None]:
    """Exactly one event is written meanwhile, of this act, by this person, and no admin log."""
    before = AuditEvent.objects.count()
    yield
    events = list(AuditEvent.objects.order_by("number")[before:])
    assert [(event.act, event.actor_kind, event.actor_id) for event in events] == [(act, "staff", sam.pk)]
    assert not LogEntry.objects.exists()


def once(admin: Client) -> str:
    found = re.search(r'name="once" value="([^"]+)"', text(admin.get(page("key", "add"))))
    assert found
    return found[1]


def key_form(admin: Client, of: Organization, **fields: Any) -> dict[str, Any]:
    return {
        "once": once(admin),
        "organization": of.pk,
        "name": "Backend",
        "environment": "live",
        "expiry": "default",
        "expires_at_0": "",
        "expires_at_1": "",
        "networks": "",
        "rates": "",
        "metadata": "",
    } | fields


def edit_form(key: Key, **fields: Any) -> dict[str, Any]:
    at = key.expires_at
    return {
        "name": key.name,
        "scopes": [scope.pk for scope in key.scopes.all()],
        "networks": "\n".join(key.networks),
        "rates": "\n".join(key.rates),
        "metadata": "",
        "expires_at_0": at.strftime("%Y-%m-%d") if at else "",
        "expires_at_1": at.strftime("%H:%M:%S") if at else "",
        "secrets-TOTAL_FORMS": "0",
        "secrets-INITIAL_FORMS": "0",
    } | fields


def organization_form(of: Organization, members: list[Membership], **fields: Any) -> dict[str, Any]:
    form: dict[str, Any] = {
        "name": of.name,
        "policy": of.policy_id,
        "external_customer": of.external_customer,
        "memberships-TOTAL_FORMS": len(members),
        "memberships-INITIAL_FORMS": len(members),
        "memberships-2-TOTAL_FORMS": 0,
        "memberships-2-INITIAL_FORMS": 0,
    }
    for number, member in enumerate(members):
        form |= {
            f"memberships-{number}-id": member.pk,
            f"memberships-{number}-organization": of.pk,
            f"memberships-{number}-role": member.role,
        }
    return form | fields


def plain(response: Any) -> str:
    found = re.search(r'<code id="secret">(lk_[^<]+)</code>', text(response))
    assert found, text(response)
    return found[1]


# --- keys -----------------------------------------------------------------------------------------


def test_staff_make_a_key_for_a_customer_and_see_it_once(
    admin: Client, sam: User, acme: Organization
) -> None:
    scopes = [builders.scope("orders:read").pk, Scope.objects.get(name="portal:verify").pk]
    form = key_form(
        admin,
        acme,
        scopes=scopes,
        networks="203.0.113.0/24\n198.51.100.7",
        rates="10/second",
        metadata="team = payments",
    )
    with one_act("key.created", sam):
        response = admin.post(page("key", "add"), form)
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    secret = plain(response)
    key = Key.objects.get()
    assert (key.organization, key.name, key.created_by) == (acme, "Backend", sam)
    assert key.networks == ["203.0.113.0/24", "198.51.100.7/32"]
    assert (key.rates, key.metadata) == (["10/second"], {"team": "payments"})
    assert sorted(key.scopes.values_list("name", flat=True)) == ["orders:read", "portal:verify"]
    assert key.expires_at is not None
    assert secret not in text(admin.get(page("key", "change", key.pk)))
    assert secret not in str(dict(admin.session))


def test_a_key_form_sent_again_makes_no_second_key(admin: Client, acme: Organization) -> None:
    form = key_form(admin, acme)
    admin.post(page("key", "add"), form)
    response = admin.post(page("key", "add"), form)
    assert response.status_code == 200
    assert "has made its key already" in text(response)
    assert Key.objects.count() == 1


def test_making_a_key_needs_a_recent_sign_in(client: Client, sam: User, acme: Organization) -> None:
    client.force_login(sam)
    for url in (page("key", "add"), page("key", "rotate", builders.key(acme).key.pk)):
        response = client.get(url)
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("account_reauthenticate"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"organization": ""}, "This field is required"),
        ({"organization": "abc"}, "Select a valid choice"),
        ({"name": ""}, "This field is required"),
        ({"environment": "prod"}, "Select a valid choice"),
        ({"scopes": ["999999"]}, "Select a valid choice"),
        ({"scopes": ["abc"]}, "is not a valid value"),
        ({"networks": "10.0.0.1/8"}, "has host bits set"),
        ({"networks": "nowhere"}, "is not an address"),
        ({"rates": "fast"}, "is not a rate"),
        ({"rates": "1/second\n2/second"}, "one rate for each window"),
        ({"metadata": "no equals"}, "name = value"),
        ({"expiry": "date", "expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "in the past"),
        ({"expiry": "date", "expires_at_0": "9999-12-31", "expires_at_1": "23:59:59"}, "too far away"),
        ({"expiry": "date"}, "Say when"),
        ({"expiry": "never", "expires_at_0": "2099-01-01", "expires_at_1": "00:00"}, "leave the moment"),
        ({"expiry": "maybe"}, "Select a valid choice"),
        ({"once": "forged"}, "open for too long"),
    ],
)
def test_what_is_refused_is_an_error_of_the_form(
    admin: Client, acme: Organization, fields: dict[str, Any], sentence: str
) -> None:
    events = AuditEvent.objects.count()
    response = admin.post(page("key", "add"), key_form(admin, acme, **fields))
    assert response.status_code == 200
    assert sentence in text(response)
    assert "errornote" in text(response)
    assert (Key.objects.count(), AuditEvent.objects.count()) == (0, events)


def test_a_scope_outside_the_policy_is_refused_at_its_field(admin: Client, acme: Organization) -> None:
    who = lifecycle.command_actor()
    lifecycle.edit_policy(who, acme.policy, all_scopes=False, now=timezone.now())
    response = admin.post(
        page("key", "add"), key_form(admin, acme, scopes=[builders.scope("orders:read").pk])
    )
    assert "Not a scope that this organization&#x27;s keys may hold" in text(response)
    assert not Key.objects.exists()


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:6]))
@pytest.mark.parametrize(
    "field", ["name", "networks", "rates", "metadata", "expires_at_0", "organization", "once", "scopes"]
)
def test_no_junk_in_a_key_form_is_an_error_of_the_server(
    admin: Client, acme: Organization, field: str, junk: str
) -> None:
    raw = junk.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    response = admin.post(page("key", "add"), key_form(admin, acme, **{field: raw}))
    assert response.status_code in (200, 400)
    key = builders.key(acme).key
    response = admin.post(page("key", "change", key.pk), edit_form(key, **{field: raw}))
    assert response.status_code in (200, 302, 400)


def test_a_form_of_more_than_a_megabyte_is_turned_away(admin: Client, acme: Organization) -> None:
    response = admin.post(page("key", "add"), key_form(admin, acme, name="x" * 1_200_000))
    assert response.status_code in (400, 413)


def test_editing_a_key_changes_what_was_changed_and_nothing_else(
    admin: Client, sam: User, acme: Organization
) -> None:
    key = builders.key(acme, scopes=("orders:read",), metadata={"team": "payments"}).key
    with one_act("key.edited", sam):
        form = edit_form(key, name="Frontend", metadata="team = payments")
        response = admin.post(page("key", "change", key.pk), form)
    assert response.status_code == 302
    event = AuditEvent.objects.first()
    assert event is not None
    assert event.data["changes"] == {"name": ["Backend", "Frontend"]}


def test_saving_a_key_unchanged_is_no_act(admin: Client, acme: Organization) -> None:
    key = builders.key(acme, scopes=("orders:read",), networks=["203.0.113.0/24"]).key
    events = AuditEvent.objects.count()
    assert admin.post(page("key", "change", key.pk), edit_form(key)).status_code == 302
    assert AuditEvent.objects.count() == events


def test_organization_environment_and_id_cannot_be_edited(admin: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    other = builders.organization("other")
    fields = {
        "organization": other.pk,
        "environment": "test",
        "public_id": "key_x",
        "revoked_at_0": "2026-01-01",
    }
    admin.post(page("key", "change", key.pk), edit_form(key, **fields))
    after = builders.reloaded(key)
    assert (after.organization, after.environment, after.public_id) == (acme, "live", key.public_id)
    assert after.revoked_at is None


def test_a_revoked_key_can_only_be_seen(admin: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    lifecycle.revoke_key(lifecycle.command_actor(), key, now=timezone.now())
    assert admin.get(page("key", "change", key.pk)).status_code == 200
    assert admin.post(page("key", "change", key.pk), edit_form(key, name="x")).status_code == 403


def test_staff_rotate_a_key_and_see_the_new_secret_once(admin: Client, sam: User, acme: Organization) -> None:
    issued = builders.key(acme)
    url = page("key", "rotate", issued.key.pk)
    form = {"overlap": "86400", "current": issued.secret.pk}
    with one_act("key.rotated", sam):
        response = admin.post(url, form)
    assert "no-store" in response["Cache-Control"]
    assert plain(response) != issued.plaintext
    again = admin.post(url, form)
    assert again.status_code == 400
    assert "already been replaced" in text(again)
    assert Secret.objects.count() == 2


@pytest.mark.parametrize(
    "form", [{}, {"overlap": "7"}, {"overlap": "0", "current": "9" * 30}, {"current": "x"}]
)
def test_a_bad_rotation_is_an_error_of_the_form(
    admin: Client, acme: Organization, form: dict[str, str]
) -> None:
    key = builders.key(acme).key
    assert admin.post(page("key", "rotate", key.pk), form).status_code == 400
    assert Secret.objects.count() == 1


def test_rotating_with_a_secret_of_another_key_is_refused(admin: Client, acme: Organization) -> None:
    key, other = builders.key(acme).key, builders.key(acme)
    form = {"overlap": "0", "current": other.secret.pk}
    response = admin.post(page("key", "rotate", key.pk), form)
    assert response.status_code == 400 or plain(response)
    assert key.secrets.filter(stops_at=None).count() == 1


# --- actions --------------------------------------------------------------------------------------


def act_on(admin: Client, model: str, action: str, *objects: Any, **fields: Any) -> Any:
    return admin.post(
        page(model), {"action": action, "_selected_action": [each.pk for each in objects], **fields}
    )


def test_revoking_asks_with_a_list_and_a_reason_then_acts_once_a_key(
    admin: Client, sam: User, acme: Organization
) -> None:
    keys = [builders.key(acme, name=name).key for name in ("One", "Two")]
    asked = act_on(admin, "key", "revoke", *keys, index="0")
    assert asked.status_code == 200
    assert "One" in text(asked)
    assert "Two" in text(asked)
    assert 'name="reason"' in text(asked)
    assert all(builders.reloaded(key).revoked_at is None for key in keys)
    missing = act_on(admin, "key", "revoke", *keys, confirmed="yes", reason="")
    assert missing.status_code == 400
    done = act_on(admin, "key", "revoke", *keys, confirmed="yes", reason="Leaked in a log")
    assert done.status_code == 302
    assert all(builders.reloaded(key).revoked_reason == "Leaked in a log" for key in keys)
    events = AuditEvent.objects.filter(act="key.revoked")
    assert [(event.actor_id, event.data) for event in events] == [(sam.pk, {"reason": "Leaked in a log"})] * 2


@pytest.mark.parametrize("reason", ["x" * 201, "\x00", " "])
def test_a_bad_reason_is_asked_for_again(admin: Client, acme: Organization, reason: str) -> None:
    key = builders.key(acme).key
    assert act_on(admin, "key", "revoke", key, confirmed="yes", reason=reason).status_code == 400
    assert builders.reloaded(key).revoked_at is None


def test_a_key_is_revoked_from_its_own_page(admin: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    form = {"CHANGE_FORM-action": "revoke", "index": "0", "_selected_action": key.pk}
    assert 'name="reason"' in text(admin.post(page("key", "change", key.pk), form))


def test_disabling_enabling_and_ending_an_overlap(admin: Client, sam: User, acme: Organization) -> None:
    issued = builders.key(acme)
    for action, act in (("disable", "key.disabled"), ("enable", "key.enabled")):
        with one_act(act, sam):
            assert act_on(admin, "key", action, issued.key, confirmed="yes").status_code == 302
    lifecycle.rotate_key(
        lifecycle.command_actor(), issued.key, overlap=dt.timedelta(hours=1), now=timezone.now()
    )
    with one_act("key.overlap_ended", sam):
        act_on(admin, "key", "end_overlap", issued.key, confirmed="yes")


def test_a_refused_action_says_so_and_the_others_go_on(admin: Client, acme: Organization) -> None:
    gone, key = builders.key(acme, name="Gone").key, builders.key(acme).key
    lifecycle.revoke_key(lifecycle.command_actor(), gone, now=timezone.now())
    response = act_on(admin, "key", "disable", gone, key, confirmed="yes")
    assert response.status_code == 302
    assert builders.reloaded(key).disabled_at is not None
    assert "This key has been revoked" in text(admin.get(page("key")))


@pytest.mark.parametrize("value", ["abc", "", "\x00", "9" * 40, "1.5"])
@pytest.mark.parametrize("model", ["key", "organization", "membership"])
def test_junk_in_a_selection_is_a_bad_request(admin: Client, model: str, value: str) -> None:
    action = {"key": "revoke", "organization": "suspend", "membership": "remove"}[model]
    form = {"action": action, "_selected_action": [value], "index": "0"}
    assert admin.post(page(model), form).status_code in (200, 302, 400)


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
    form: dict[str, Any] = {
        "name": "Gold",
        "slug": "gold",
        "scopes": [scope.pk],
        "default_lifetime_days": "30",
        "max_lifetime_days": "60",
        "max_keys": "",
        "rates": "1000/hour\n10/second",
    }
    with one_act("policy.created", sam):
        assert admin.post(page("policy", "add"), form).status_code == 302
    policy = Policy.objects.get(slug="gold")
    assert (policy.rates, policy.all_scopes) == (["10/second", "1000/hour"], False)
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


# --- what cannot be done --------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_nothing_can_be_deleted(admin: Client, acme: Organization, model: str) -> None:
    builders.key(acme)
    objects: dict[str, Any] = {
        "organization": acme,
        "membership": acme.memberships.first(),
        "scope": Scope.objects.first(),
        "policy": acme.policy,
        "key": Key.objects.first(),
        "auditevent": AuditEvent.objects.first(),
    }
    pk = objects[model].pk
    assert admin.post(page(model, "delete", pk), {"post": "yes"}).status_code == 403
    assert "Delete" not in text(admin.get(page(model, "change", pk)))
    admin.post(page(model), {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
    assert type(objects[model])._default_manager.filter(pk=pk).exists()


def test_history_is_only_to_be_read(admin: Client, acme: Organization) -> None:
    event = AuditEvent.objects.first()
    assert event is not None
    assert admin.get(page("auditevent", "add")).status_code == 403
    assert admin.get(page("auditevent", "change", event.pk)).status_code == 200
    assert admin.post(page("auditevent", "change", event.pk), {"act": "x"}).status_code == 403


def test_staff_without_the_permission_are_refused(client: Client, acme: Organization) -> None:
    builders.signed_in(client, builders.user("mia", is_staff=True))
    key = builders.key(acme).key
    for url in (
        page("key"),
        page("key", "add"),
        page("key", "rotate", key.pk),
        page("key", "change", key.pk),
    ):
        assert client.get(url).status_code == 403
    assert client.post(page("key"), {"q": "acme"}).status_code == 403
    assert act_on(client, "key", "revoke", key, confirmed="yes", reason="x").status_code == 403


# --- search, filters, queries ---------------------------------------------------------------------


def listed(response: Any) -> list[str]:
    return [key.name for key in response.context["cl"].result_list]


def test_keys_are_found_by_name_id_last_four_and_organization(admin: Client, acme: Organization) -> None:
    issued = builders.key(acme, name="Wanted")
    builders.key(builders.organization("other"), name="Another")
    for q in ("want", issued.key.public_id, issued.secret.hint, f"lk_live_…{issued.secret.hint}", "acme"):
        response = admin.post(page("key"), {"q": q}, follow=True)
        assert listed(response) == ["Wanted"], q


def test_a_pasted_key_is_found_and_stands_in_no_address_or_log(
    admin: Client, acme: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    issued = builders.key(acme)
    for response in (
        admin.post(page("key"), {"q": f" {issued.plaintext}\n"}),
        admin.get(page("key"), {"q": issued.plaintext}),
    ):
        assert response.status_code == 302
        assert response["Location"] == page("key", "change", issued.key.pk)
    mistyped = issued.plaintext[:-1] + ("0" if issued.plaintext[-1] != "0" else "1")
    for response in (admin.post(page("key"), {"q": mistyped}), admin.get(page("key"), {"q": mistyped})):
        assert response.status_code == 302
        assert mistyped not in response["Location"]
    assert "No key here has that secret" in text(admin.get(page("key")))
    assert issued.plaintext[8:] not in caplog.text
    assert mistyped[8:] not in caplog.text


def test_an_imported_key_is_found_too(admin: Client, acme: Organization) -> None:
    foreign = "sk-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
    key = lifecycle.import_key(
        lifecycle.command_actor(),
        acme,
        name="Old",
        sha256=sha256(foreign.encode()).hexdigest(),
        now=timezone.now(),
    )
    response = admin.post(page("key"), {"q": foreign})
    assert response["Location"] == page("key", "change", key.pk)


def test_keys_are_filtered_by_state_and_organization(admin: Client, acme: Organization) -> None:
    builders.key(acme, name="Live")
    gone = builders.key(acme, name="Gone").key
    builders.key(builders.organization("other"), name="Another")
    lifecycle.revoke_key(lifecycle.command_actor(), gone, now=timezone.now())
    assert listed(admin.get(page("key"), {"state": "revoked"})) == ["Gone"]
    found = listed(admin.get(page("key"), {"organization": "acme", "state": "active"}))
    assert found == ["Live"]
    assert listed(admin.get(page("key"), {"organization": "nobody"})) == []


def test_the_audit_is_filtered(admin: Client, acme: Organization) -> None:
    key = builders.key(acme).key

    def numbers(**query: Any) -> set[str]:
        response = admin.get(page("auditevent"), query)
        assert response.status_code == 200
        return {event.act for event in response.context["cl"].result_list}

    assert numbers(act="key.created") == {"key.created"}
    assert numbers(organization="acme") == {"organization.created", "key.created"}
    assert numbers(actor="staff") == set()
    assert numbers(key__id__exact=key.pk) == {"key.created"}
    assert numbers(at__year=timezone.now().year) >= {"key.created"}


def test_every_act_of_the_lifecycle_is_among_the_audits_filters() -> None:
    folder = settings.BASE_DIR / "keys" / "lifecycle"
    written = set()
    for path in folder.glob("*.py"):
        written |= set(re.findall(r'"((?:key|member|organization|policy|scope)\.[a-z_]+)"', path.read_text()))
    assert written
    assert written <= set(ACTS)


def populate(start: int, count: int) -> None:
    now = timezone.now()
    for number in range(start, start + count):
        organization = builders.organization(f"org-{number}", builders.user(f"user{number}"))
        builders.key(organization, scopes=(f"s{number}:read",))
        lifecycle.create_policy(lifecycle.command_actor(), slug=f"p{number}", name=f"P{number}", now=now)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_takes_the_same_queries_however_long(admin: Client, model: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert admin.get(page(model), {"q": "e"} if model == "membership" else {}).status_code == 200
        return len(captured)

    populate(0, 2)
    queries()  # what is cached once: content types, permissions
    few = queries()
    populate(2, 9)
    assert queries() == few
    assert few <= 12


@pytest.mark.parametrize("model", ["organization", "key"])
def test_a_page_takes_the_same_queries_however_many_rows_it_lists(
    admin: Client, acme: Organization, model: str
) -> None:
    issued = builders.key(acme)
    url = page(model, "change", acme.pk if model == "organization" else issued.key.pk)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(url).status_code == 200
        return len(captured)

    queries()
    few = queries()
    for number in range(5):
        builders.member(builders.user(f"bob{number}"), acme)
        lifecycle.rotate_key(
            lifecycle.command_actor(), issued.key, overlap=dt.timedelta(0), now=timezone.now()
        )
    assert queries() == few


@pytest.mark.parametrize("junk", ["\x00", "abc", "9" * 40, "-1", "\ud83d", "' OR 1=1"])
@pytest.mark.parametrize(
    "name",
    ["q", "p", "o", "state", "organization", "act", "actor", "at__year", "organization__id__exact", "e"],
)
@pytest.mark.parametrize("model", ["key", "auditevent", "membership", "organization"])
def test_no_junk_in_an_address_is_an_error_of_the_server(
    admin: Client, model: str, name: str, junk: str
) -> None:
    raw = junk.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert admin.get(page(model), {name: raw}).status_code in (200, 302, 400)


@pytest.mark.parametrize("model", MODELS)
def test_a_page_of_nothing_is_no_error_of_the_server(admin: Client, model: str) -> None:
    for pk in ("999999", "abc", "%00", "9" * 40):
        url = page(model).rstrip("/") + f"/{pk}/change/"
        assert admin.get(url).status_code in (302, 400)
    junk = {"organization": "abc", "user": "x", "scopes": "y,z", "expires_at": "soon", "policy": "9" * 40}
    assert admin.get(page(model, "add"), junk).status_code in (200, 403)
    assert admin.get(page("key", "rotate", 999999)).status_code == 302


# --- no secret anywhere ---------------------------------------------------------------------------


def test_neither_digest_nor_secret_is_on_any_page(admin: Client, acme: Organization) -> None:
    issued = builders.key(acme, scopes=("orders:read",))
    second = lifecycle.rotate_key(
        lifecycle.command_actor(), issued.key, overlap=dt.timedelta(hours=1), now=timezone.now()
    )
    digests = [bytes(secret.digest) for secret in Secret.objects.all()]
    hidden = [issued.plaintext, second.plaintext]
    for digest in digests:
        hidden += [digest.hex(), base64.b64encode(digest).decode(), repr(digest)[2:-1], str(list(digest))]
    pages = [reverse("admin:index"), reverse("staff"), reverse("staff_usage"), reverse("staff_find_key")]
    pages += [reverse("admin:portal_user_changelist"), reverse("admin:app_list", args=["keys"])]
    pages += [page(model) for model in MODELS] + [page(m, "add") for m in MODELS if m != "auditevent"]
    pages += [page("auditevent", "change", event.pk) for event in AuditEvent.objects.all()]
    pages += [page("key", name, issued.key.pk) for name in ("change", "rotate")]
    pages += [page("organization", "change", acme.pk)]
    responses = [admin.get(url) for url in pages]
    responses += [act_on(admin, "key", "revoke", issued.key)]
    for response in responses:
        assert response.status_code == 200
        assert not [each for each in hidden if each in text(response)]


def test_a_new_secret_is_in_no_log(
    admin: Client, acme: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = plain(admin.post(page("key", "add"), key_form(admin, acme)))
    assert secret[8:] not in caplog.text
