"""Two customers: neither can see or touch anything of the other, by any URL."""

import pytest
from django.test import Client
from django.urls import reverse

from keys.models import AuditEvent
from keys.permissions import Role
from tests import builders

pytestmark = pytest.mark.django_db

KEY_ROUTES = [
    "key",
    "key_edit",
    "key_rotate",
    "key_revoke",
    "key_disable",
    "key_enable",
    "key_end_overlap",
    "key_extend_overlap",
    "key_roll_back",
]
NOT_TAKEN = {("key", "POST")}


@pytest.mark.parametrize("name", KEY_ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ones_own_slug_with_the_others_key_is_404_and_changes_nothing(
    client: Client, name: str, method: str
) -> None:
    alice, bob = builders.user("alice"), builders.user("bob")
    builders.organization("acme", owner=alice)
    theirs = builders.key(builders.organization("bobs", owner=bob), scopes=("orders:read",))
    builders.signed_in(client, alice)
    before = AuditEvent.objects.count()
    url = reverse(name, kwargs={"organization": "acme", "key_id": theirs.key.public_id})
    data = {"name": "Mine", "expiry": "keep", "overlap": "0", "current": str(theirs.secret.pk), "reason": "x"}
    response = client.generic(method, url) if method == "GET" else client.post(url, data)
    # A route that does not take the method says so before it looks for anything.
    assert response.status_code == (405 if (name, method) in NOT_TAKEN else 404)
    assert AuditEvent.objects.count() == before
    assert b"Backend" not in response.content


@pytest.mark.parametrize("name", ["overview", "keys", "usage", "usage_csv", "activity", "team"])
def test_a_page_never_names_what_belongs_to_the_other(client: Client, name: str) -> None:
    alice, bob = builders.user("alice"), builders.user("bob")
    acme = builders.organization("acme", owner=alice)
    builders.key(acme, name="Alices own")
    builders.key(builders.organization("bobs", owner=bob, name="Bobs secret firm"), name="Bobs key")
    builders.signed_in(client, alice)
    shown = client.get(reverse(name, kwargs={"organization": "acme"}), {"q": "Bobs", "by": "key"}).content
    assert b"Bobs key" not in shown
    assert b"Bobs secret firm" not in shown
    assert b"bob@example.com" not in shown


def test_the_others_secret_cannot_be_named_in_a_rotation(client: Client) -> None:
    alice, bob = builders.user("alice"), builders.user("bob")
    mine = builders.key(builders.organization("acme", owner=alice))
    theirs = builders.key(builders.organization("bobs", owner=bob))
    builders.signed_in(client, alice)
    url = reverse("key_rotate", kwargs={"organization": "acme", "key_id": mine.key.public_id})
    response = client.post(url, {"overlap": "0", "expiry": "keep", "current": str(theirs.secret.pk)})
    assert response.status_code == 409
    assert mine.key.secrets.count() == theirs.key.secrets.count() == 1


def test_a_member_removed_a_moment_ago_is_a_stranger(client: Client) -> None:
    alice, bob = builders.user("alice"), builders.user("bob")
    acme = builders.organization("acme", owner=alice)
    membership = builders.member(bob, acme, Role.ADMIN)
    builders.signed_in(client, bob)
    url = reverse("overview", kwargs={"organization": "acme"})
    assert client.get(url).status_code == 200
    membership.delete()
    assert client.get(url).status_code == 404


def test_pages_stay_out_of_caches(client: Client) -> None:
    alice = builders.user("alice")
    builders.organization("acme", owner=alice)
    builders.signed_in(client, alice)
    response = client.get(reverse("overview", kwargs={"organization": "acme"}))
    assert {"no-store", "private"} <= set(response.headers["Cache-Control"].replace(" ", "").split(","))


def test_every_change_needs_its_csrf_token() -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice)
    issued = builders.key(acme)
    client = builders.signed_in(Client(enforce_csrf_checks=True), alice)
    before = AuditEvent.objects.count()
    for name in ["key_new", *KEY_ROUTES[1:]]:
        kwargs = {"organization": "acme"} | ({} if name == "key_new" else {"key_id": issued.key.public_id})
        assert client.post(reverse(name, kwargs=kwargs)).status_code == 403
    assert AuditEvent.objects.count() == before
