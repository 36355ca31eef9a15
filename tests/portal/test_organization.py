"""The organization's settings, for those who may change them."""

import pytest
from django.test import Client
from django.urls import reverse

from keys.models import AuditEvent, Organization
from keys.permissions import Role
from tests import builders

pytestmark = pytest.mark.django_db

HERE = "/o/acme/settings/"


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def edits() -> list[object]:
    return [event.data["changes"] for event in AuditEvent.objects.filter(act="organization.edited")]


def test_an_owner_renames_the_organization(alice: Client, acme: Organization) -> None:
    page = alice.get(HERE).text
    assert 'value="Acme"' in page
    assert '<code id="slug">acme</code>' in page
    answer = alice.post(HERE, {"name": "  Acme Maps “Ltd” <b> "}, follow=True)
    assert "The settings are saved." in answer.text
    assert "Acme Maps “Ltd” &lt;b&gt;" in answer.text
    acme.refresh_from_db()
    assert (acme.slug, acme.name) == ("acme", "Acme Maps “Ltd” <b>")
    assert edits() == [{"name": ["Acme", acme.name]}]


def test_what_is_saved_as_it_was_is_no_act(alice: Client) -> None:
    assert alice.post(HERE, {"name": "Acme"}).status_code == 302
    assert edits() == []


@pytest.mark.parametrize(
    "name",
    ["", " ", "a" * 101, "a\x00b", "a\nb", "a" * 100_000],
    ids=lambda name: ascii(name)[:12],
)
def test_what_is_no_name_is_said_and_changes_nothing(alice: Client, acme: Organization, name: str) -> None:
    answer = alice.post(HERE, {"name": name})
    assert answer.status_code == 200
    assert 'aria-invalid="true"' in answer.text
    acme.refresh_from_db()
    assert acme.name == "Acme"
    assert edits() == []


def test_the_way_to_it_is_shown_to_those_who_may(alice: Client, acme: Organization) -> None:
    assert f'href="{HERE}"' in alice.get(reverse("overview", args=["acme"])).text
    builders.member(dave := builders.user("dave"), acme, Role.DEVELOPER)
    developer = builders.signed_in(Client(), dave)
    assert f'href="{HERE}"' not in developer.get(reverse("overview", args=["acme"])).text
    assert developer.post(HERE, {"name": "Mine"}).status_code == 403
    acme.refresh_from_db()
    assert acme.name == "Acme"
