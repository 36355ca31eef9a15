"""What the pages say of a policy: its terms before a key is made, and what it wants of each key."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import Key, Organization
from portal.management.commands.worker import retire_idle_keys
from tests import builders
from usage.models import SecretUse

pytestmark = pytest.mark.django_db
COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def tighten(of: Organization, **fields: Any) -> None:
    lifecycle.edit_policy(COMMAND, of.policy, now=timezone.now(), **fields)


def shown(client: Client, name: str, key: Key | None = None, **more: str) -> str:
    arguments = {"organization": "acme"} | ({} if key is None else {"key_id": key.public_id}) | more
    return client.get(reverse(name, kwargs=arguments)).content.decode()


def old_key(of: Organization, days: int = 100) -> Key:
    return builders.key(of, now=timezone.now() - days * DAY, expires_at=None).key


def test_the_form_of_a_new_key_says_what_the_policy_asks(alice: Client, acme: Organization) -> None:
    key = old_key(acme)
    assert "policy" not in shown(alice, "key_new")
    tighten(acme, max_lifetime_days=30, networks_required=True, rotate_days=30, idle_days=60, max_keys=5)
    html = shown(alice, "key_new")
    for sentence in (
        "Keys live for 30 days at most",
        "Live keys are limited to networks.",
        "Secrets are rotated every 30 days.",
        "Keys without a call for 60 days are disabled",
        "1 of 5 keys are in use.",
    ):
        assert sentence in html
    assert '<details class="field more" open>' in html
    assert "5 keys are in use" not in shown(alice, "key_edit", key)


def test_a_key_that_the_policy_has_overtaken_says_what_mends_it(alice: Client, acme: Organization) -> None:
    key = old_key(acme)
    assert "outside the policy" not in shown(alice, "key", key)
    tighten(acme, expiry_required=True, networks_required=True)
    html = shown(alice, "key", key)
    assert "This key is outside the policy" in html
    assert "It never expires, and keys here must: give it an expiry." in html
    assert "Outside the policy" in shown(alice, "keys")
    lifecycle.revoke_key(COMMAND, key, now=timezone.now())
    assert "outside the policy" not in shown(alice, "key", key) + shown(alice, "keys").lower()


def test_a_secret_that_is_too_old_is_due_for_rotation(alice: Client, acme: Organization) -> None:
    key = old_key(acme)
    tighten(acme, rotate_days=101)
    assert "Rotate by" in shown(alice, "key", key)
    assert "Rotation is due" not in shown(alice, "key", key)
    tighten(acme, rotate_days=100)
    assert "Rotation is due" in shown(alice, "key", key)
    assert "Rotation due" in shown(alice, "keys")


def test_an_unused_key_shows_when_it_retires_and_a_used_one_stays(alice: Client, acme: Organization) -> None:
    unused, used = old_key(acme), old_key(acme)
    SecretUse.objects.create(secret=used.secrets.get(), calls=1, last_used_at=timezone.now() - DAY)
    tighten(acme, idle_days=60)
    retire_idle_keys()
    assert builders.reloaded(used).retires_at is None
    assert "This key retires on" in shown(alice, "key", unused)
    for page in ("keys", "overview"):
        assert "Not used: retires in 13 days" in shown(alice, page)
    Key.objects.update(retires_at=timezone.now() - DAY)
    retire_idle_keys()
    assert "This key was retired" in shown(alice, "key", unused)
    assert "Retired: it was not used" in shown(alice, "keys")
    assert builders.reloaded(used).disabled_at is None
