"""Canaries: they look like keys, are refused like revoked ones, and whoever tries one rings the alarm."""

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle, tokens
from keys.directory import Directory
from keys.models import Key, LeakReport, Organization
from keys.permissions import Role
from keys.verdicts import Code
from portal import canaries
from portal.models import Mail
from tests import builders
from tests.threads import at_once
from usage import metering
from usage.drain import drain_once
from usage.models import Rollup

pytestmark = pytest.mark.django_db

UNKNOWN = tokens.mint("lk", "live").plaintext


@pytest.fixture
def directory(journal_dir: Path) -> Iterator[Directory]:
    directory = Directory(process_id="test", lock_dir=journal_dir)
    directory.refresh()
    metering.start(directory)
    yield directory
    metering.stop()


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", builders.user("alice"))


@pytest.fixture
def planted(acme: Organization) -> lifecycle.Issued:
    return plant(acme)


def plant(acme: Organization, name: str = "Wiki") -> lifecycle.Issued:
    return lifecycle.plant_canary(lifecycle.command_actor(), acme, name=name, now=timezone.now())


def tried(issued: lifecycle.Issued, directory: Directory, address: str = "203.0.113.9") -> Code:
    """One call with this key, counted."""
    directory.refresh()
    decision = metering.authorize(
        issued.plaintext, address=address, user_agent="curl/8", resource="orders", now=time.time()
    )
    drain_once(timezone.now())
    return decision.code


def test_a_canary_looks_like_a_key_and_is_refused_as_a_revoked_one(
    acme: Organization, planted: lifecycle.Issued, directory: Directory
) -> None:
    revoked = builders.key(acme)
    lifecycle.revoke_key(lifecycle.command_actor(), revoked.key, now=timezone.now())
    assert tokens.parse(planted.plaintext) is not None
    assert tried(planted, directory) is tried(revoked, directory) is Code.REVOKED


def test_its_use_is_reported_and_mailed_with_where_it_came_from(
    planted: lifecycle.Issued, directory: Directory
) -> None:
    tried(planted, directory)
    assert canaries.ring(timezone.now()) == 1
    report = LeakReport.objects.get()
    assert (report.key, report.door, report.place) == (planted.key, "canary", "203.0.113.9, curl/8")
    mail = Mail.objects.get()
    assert (mail.to, mail.subject) == ("alice@example.com", "Somebody tried your canary: Wiki")
    assert "203.0.113.9" in mail.text
    assert tokens.redact(mail.text) == mail.text


def test_it_rings_once_an_hour_however_often_it_is_tried(
    planted: lifecycle.Issued, directory: Directory
) -> None:
    for number in range(30):
        tried(planted, directory, f"203.0.113.{number}")
        canaries.ring(timezone.now())
    hour = Rollup.objects.latest("hour").hour
    hours = {hour, Rollup.objects.earliest("hour").hour}  # the test may run over an hour's end
    assert LeakReport.objects.count() == Mail.objects.count() == len(hours)
    Rollup.objects.filter(hour=hour).update(hour=hour - dt.timedelta(hours=1))  # as if it went on
    tried(planted, directory)
    canaries.ring(timezone.now())
    assert Mail.objects.count() <= len(hours) + 1


def test_it_rings_for_more_than_the_bound_of_reports(
    planted: lifecycle.Issued, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.lifecycle.leaks.MOST", 0)
    tried(planted, directory)
    assert canaries.ring(timezone.now()) == 1
    assert Mail.objects.count() == 1


def test_calls_with_other_revoked_keys_ring_nothing(acme: Organization, directory: Directory) -> None:
    plant(acme)
    revoked = builders.key(acme)
    lifecycle.revoke_key(lifecycle.command_actor(), revoked.key, now=timezone.now())
    tried(revoked, directory)
    assert canaries.ring(timezone.now()) == 0
    assert not Mail.objects.exists()


def test_a_canary_that_was_taken_up_rings_no_more(planted: lifecycle.Issued, directory: Directory) -> None:
    lifecycle.take_up_canary(lifecycle.command_actor(), planted.key, now=timezone.now())
    assert tried(planted, directory) is Code.REVOKED
    assert canaries.ring(timezone.now()) == 0


def test_what_would_make_it_work_is_refused(planted: lifecycle.Issued, directory: Directory) -> None:
    actor, now = lifecycle.command_actor(), timezone.now()
    for act in (lifecycle.enable_key, lifecycle.disable_key):
        with pytest.raises(lifecycle.Conflict):
            act(actor, planted.key, now=now)
    with pytest.raises(lifecycle.Conflict):
        lifecycle.rotate_key(actor, planted.key, overlap=dt.timedelta(0), now=now)
    with pytest.raises(lifecycle.Conflict):
        lifecycle.edit_key(actor, planted.key, name="x", now=now)
    assert tried(planted, directory) is Code.REVOKED


def test_an_organization_has_so_many_canaries_and_none_counts_as_a_key(acme: Organization) -> None:
    acme.policy.max_keys = 1
    acme.policy.networks_required = True
    acme.policy.save()
    for number in range(20):
        plant(acme, f"Place {number}")
    with pytest.raises(lifecycle.Conflict):
        plant(acme)
    assert acme.keys.filter(revoked_at=None).count() == 0


def test_a_canary_is_planted_on_its_page_and_shown_once(client: Client, acme: Organization) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.DEVELOPER)
    builders.signed_in(client, bob)
    here = reverse("key_canary", kwargs={"organization": "acme"})
    form = {"once": client.get(here).context["once"], "name": "Wiki", "environment": "live"}
    made = client.post(here, form)
    again = client.post(here, form)
    key = Key.objects.get(canary=True)
    assert "lk_live_" in made.text
    assert "no-store" in made["Cache-Control"]
    assert again.status_code == 409
    kwargs = {"organization": "acme", "key_id": key.public_id}
    page = client.get(reverse("key", kwargs=kwargs)).text
    assert "This key is a canary" in page
    assert "This key is revoked" not in page
    client.post(reverse("key_take_up", kwargs=kwargs))
    assert not builders.reloaded(key).canary
    acts = list(key.events.order_by("number").values_list("act", flat=True))
    assert acts == ["key.canary_planted", "key.canary_taken_up"]


@pytest.mark.parametrize("name", ["", "\x00", "x" * 101, UNKNOWN], ids=["none", "control", "long", "a key"])
def test_a_name_that_cannot_be_is_told(client: Client, acme: Organization, name: str) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.DEVELOPER)
    builders.signed_in(client, bob)
    here = reverse("key_canary", kwargs={"organization": "acme"})
    once = client.get(here).context["once"]
    response = client.post(here, {"once": once, "name": name, "environment": "live"})
    assert response.status_code == 200
    assert "field-error" in response.text
    assert not Key.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_ring_once(acme: Organization, directory: Directory) -> None:
    tried(plant(acme), directory)
    at_once([lambda: canaries.ring(timezone.now())] * 3)
    assert LeakReport.objects.count() == 1
    assert Mail.objects.count() == 1
