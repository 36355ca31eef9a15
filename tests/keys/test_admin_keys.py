"""Keys in the admin: every write is one audited act, and what is refused is an error of its form."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import AuditEvent, Key, Organization, Scope, Secret
from portal.models import User
from tests import builders
from tests.builders import text
from tests.keys.admin_forms import act_on, edit_form, key_form, one_act, page, plain, shown

pytestmark = pytest.mark.django_db

JUNK = ["\x00", "\ud800", "x" * 500_000, "%00%0a", "'\"><b>", "9" * 40]


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
        quotas="1000/month",
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
    assert key.quotas == ["1000/month"]
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
        ({"quotas": "fast"}, "is not a quota"),
        ({"quotas": "1/day\n2/day"}, "one quota for each meter and period"),
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
    response = admin.get(page("key", "change", key.pk))
    assert response.status_code == 200
    assert "Current" not in response.text  # nor does its secret work
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
        asked = act_on(admin, "key", action, issued.key).content.decode()
        assert ("delete-confirmation" in asked) == (action == "disable")  # which makes its button red
        with one_act(act, sam):
            assert act_on(admin, "key", action, issued.key, confirmed="yes").status_code == 302
    lifecycle.rotate_key(
        lifecycle.command_actor(), issued.key, overlap=dt.timedelta(hours=1), now=timezone.now()
    )
    with one_act("key.overlap_ended", sam):
        act_on(admin, "key", "end_overlap", issued.key, confirmed="yes")


def test_a_page_that_was_left_open_does_not_undo_an_edit(admin: Client, acme: Organization) -> None:
    key = builders.key(acme, scopes=("orders:read", "orders:write")).key
    url = page("key", "change", key.pk)
    mine = edit_form(key, name="Mine") | shown(admin.get(url))
    command, now = lifecycle.command_actor(), timezone.now()
    lifecycle.edit_key(command, key, scopes=["orders:read"], networks=["10.0.0.0/8"], now=now)
    assert "Somebody changed this meanwhile" in text(admin.post(url, mine))
    told = admin.post(url, mine | {"name": ""})
    assert "Somebody changed this meanwhile" in text(told)
    assert builders.reloaded(key).networks == ["10.0.0.0/8"]
    # Having read so, one may save all the same; an error in between says nothing else.
    wrong = admin.post(url, mine | shown(told) | {"rates": "fast"})
    assert admin.post(url, mine | shown(wrong)).status_code == 302
    assert (builders.reloaded(key).name, builders.reloaded(key).networks) == ("Mine", [])


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
