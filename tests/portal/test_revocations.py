"""Keys that staff or members revoke: one or many at once, each audited, and each person told once."""

import datetime as dt
from functools import partial
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import AuditEvent, Key, LeakDoor, LeakResponse, Organization
from keys.permissions import Role
from portal import revocations
from portal.models import Mail, User
from tests import builders
from tests.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Organization:
    """Alice owns it; Bob, a developer, and Charlie, a viewer, are members."""
    organization = builders.organization("acme", owner=builders.user("alice"))
    builders.member(builders.user("bob"), organization)
    builders.member(builders.user("charlie"), organization, Role.VIEWER)
    return organization


def made_by(name: str, of: Organization, key_name: str = "Backend") -> Key:
    key = builders.key(of, name=key_name).key
    Key.objects.filter(pk=key.pk).update(created_by=User.objects.get(email=f"{name}@example.com"))
    return builders.reloaded(key)


def revoke(sam: User, *keys: Key) -> list[Key]:
    return revocations.revoke(lifecycle.staff_actor(sam), keys, reason="Leaked", now=timezone.now())


def mails() -> dict[str, str]:
    found = Mail.objects.filter(once__startswith="revoked ")
    assert len(found) == len({mail.to for mail in found})
    return {mail.to: f"{mail.subject}\n{mail.text}" for mail in found}


def test_owners_are_told_of_all_keys_and_makers_of_their_own(sam: User, acme: Organization) -> None:
    bobs, alices = made_by("bob", acme, "Batch"), made_by("alice", acme, "Shop")
    nobodys = builders.key(acme, name="By command").key
    assert revoke(sam, bobs, alices, nobodys) == [bobs, alices, nobodys]
    told = mails()
    assert set(told) == {"alice@example.com", "bob@example.com"}
    for name in ("Batch", "Shop", "By command", "Leaked", "3 API keys of Acme were revoked"):
        assert name in told["alice@example.com"]
    assert "Batch" in told["bob@example.com"]
    assert "Shop" not in told["bob@example.com"]
    assert bobs.secrets.get().hint in told["bob@example.com"]


def test_who_left_or_whose_key_is_left_alone_gets_no_mail(sam: User, acme: Organization) -> None:
    key = made_by("bob", acme)
    membership = acme.memberships.get(user__email="bob@example.com")
    lifecycle.remove_member(lifecycle.command_actor(), membership, now=timezone.now())
    revoke(sam, key)
    assert set(mails()) == {"alice@example.com"}


def test_a_key_is_revoked_and_told_of_once(sam: User, acme: Organization) -> None:
    key = made_by("bob", acme)
    assert revoke(sam, key) == [key]
    assert revoke(sam, key) == []
    assert AuditEvent.objects.filter(act="key.revoked").count() == 1
    assert Mail.objects.filter(once__startswith="revoked ").count() == 2


def test_customers_hear_of_their_own_keys_alone(sam: User, acme: Organization) -> None:
    other = builders.organization("other", owner=builders.user("dora"))
    revoke(sam, builders.key(acme, name="Ours").key, builders.key(other, name="Theirs").key)
    told = mails()
    assert "Theirs" not in told["alice@example.com"]
    assert "Ours" not in told["dora@example.com"]
    assert AuditEvent.objects.filter(act="key.revoked").count() == 2


def test_many_keys_go_in_lots_each_with_one_mail(
    sam: User, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "LOT", 2)
    keys = [builders.key(acme).key for _ in range(5)]
    assert len(revoke(sam, *keys)) == 5
    assert Mail.objects.filter(once__startswith="revoked ").count() == 3


@pytest.mark.django_db(transaction=True)
def test_two_who_revoke_the_same_keys_at_once_tell_once(sam: User, acme: Organization) -> None:
    keys = [builders.key(acme).key for _ in range(4)]
    outcomes = at_once([partial(revoke, sam, *keys), partial(revoke, sam, *keys[::-1])])
    assert [each for each in outcomes if not isinstance(each, list)] == []
    assert sorted(len(each) for each in outcomes if isinstance(each, list)) == [0, 4]
    assert AuditEvent.objects.filter(act="key.revoked").count() == 4
    assert Mail.objects.filter(once__startswith="revoked ").count() == 1


# --- by a member ----------------------------------------------------------------------------------


def test_a_member_who_revokes_is_named_to_owners_and_makers_but_not_told(
    client: Client, acme: Organization
) -> None:
    builders.member(builders.user("dora"), acme, Role.ADMIN)
    builders.signed_in(client, User.objects.get(email="dora@example.com"))
    bobs, doras = made_by("bob", acme, "Batch"), made_by("dora", acme, "Shop")
    chosen = {"key": [bobs.public_id, doras.public_id], "confirmed": "yes", "reason": "Moved <b>"}
    assert "Revoked 2 keys." in client.post(reverse("keys_revoke", args=["acme"]), chosen, follow=True).text
    told = mails()
    assert set(told) == {"alice@example.com", "bob@example.com"}
    for text in ("Batch", "Shop", "by dora@example.com", "Moved <b>", "under Activity"):
        assert text in told["alice@example.com"]
    assert "Shop" not in told["bob@example.com"]


def test_an_owner_who_revokes_a_key_of_their_own_gets_no_mail(client: Client, acme: Organization) -> None:
    builders.signed_in(client, User.objects.get(email="alice@example.com"))
    key = made_by("alice", acme)
    for _ in range(2):
        client.post(reverse("key_revoke", args=["acme", key.public_id]), {"reason": "Old"})
    assert builders.reloaded(key).revoked_reason == "Old"
    assert mails() == {}


# --- in the admin ---------------------------------------------------------------------------------


def post(client: Client, *keys: Key, **fields: Any) -> Any:
    form = {"action": "revoke", "_selected_action": [key.pk for key in keys], **fields}
    return client.post(reverse("admin:keys_key_changelist"), form, follow="confirmed" in fields)


def test_the_admin_shows_how_many_and_whose_before_it_revokes(admin: Client, acme: Organization) -> None:
    other = builders.organization("other")
    keys = [builders.key(acme).key, builders.key(acme).key, builders.key(other).key]
    shown = post(admin, *keys)
    assert shown.context["told"] == [(acme, 2), (other, 1)]
    assert "3 keys:" in shown.content.decode()
    assert not Mail.objects.exists()
    assert Key.objects.filter(revoked_at=None).count() == 3
    done = post(admin, *keys, confirmed="yes", reason="Leaked").content.decode()
    assert "3 keys revoked." in done
    assert not Key.objects.filter(revoked_at=None).exists()
    assert set(mails()) == {"alice@example.com"}
    assert "3 keys were before." in post(admin, *keys, confirmed="yes", reason="x").content.decode()


def test_leaked_keys_are_chosen_on_the_leaks_page(admin: Client, acme: Organization) -> None:
    key, gone = builders.key(acme).key, builders.key(acme).key
    now = timezone.now()
    for each in (key, gone):
        lifecycle.report_leak(each.secrets.get(), door=LeakDoor.PAGE, response=LeakResponse.NOTIFY, now=now)
    lifecycle.revoke_key(lifecycle.command_actor(), gone, now=now + dt.timedelta(seconds=1))
    shown = admin.get(reverse("staff_leaks")).content.decode()
    assert f'name="_selected_action" value="{key.pk}"' in shown
    assert f'name="_selected_action" value="{gone.pk}"' not in shown
    assert reverse("admin:keys_key_changelist") in shown
    lifecycle.revoke_key(lifecycle.command_actor(), key, now=now + dt.timedelta(seconds=2))
    assert "keys-box" not in admin.get(reverse("staff_leaks")).content.decode()


def test_staff_who_may_not_change_keys_can_revoke_none(client: Client, acme: Organization) -> None:
    builders.signed_in(client, builders.user("mia", is_staff=True))
    key = builders.key(acme).key
    assert post(client, key, confirmed="yes", reason="x").status_code == 403
    assert "_selected_action" not in client.get(reverse("staff_leaks")).content.decode()
    assert builders.reloaded(key).revoked_at is None
