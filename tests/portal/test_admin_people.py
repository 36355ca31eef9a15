"""People in the admin: what staff may change of whom, and what each of them sees there."""

from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from keys.models import AuditEvent
from portal.models import User
from tests import builders
from tests.builders import text

pytestmark = pytest.mark.django_db


def user_form(person: User, **fields: Any) -> dict[str, Any]:
    addresses = EmailAddress.objects.filter(user=person)
    form: dict[str, Any] = {
        "email": person.email,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "is_active": "on" if person.is_active else "",
        "emailaddress_set-TOTAL_FORMS": len(addresses),
        "emailaddress_set-INITIAL_FORMS": len(addresses),
        "acceptances-TOTAL_FORMS": 0,
        "acceptances-INITIAL_FORMS": 0,
    }
    for number, address in enumerate(addresses):
        form |= {
            f"emailaddress_set-{number}-id": address.pk,
            f"emailaddress_set-{number}-user": person.pk,
            f"emailaddress_set-{number}-verified": "on" if address.verified else "",
        }
    form |= fields
    return {name: value for name, value in form.items() if value != ""}


def test_staff_add_a_person_who_signs_in_with_that_address(admin: Client, sam: User) -> None:
    form = {
        "email": "Bob@Example.com",
        "usable_password": "true",
        "password1": builders.PASSWORD,
        "password2": builders.PASSWORD,
    }
    response = admin.post(reverse("admin:portal_user_add"), form)
    assert response.status_code == 302
    bob = User.objects.get(email="bob@example.com")
    assert bob.check_password(builders.PASSWORD)
    address = EmailAddress.objects.get(user=bob)
    assert (address.email, address.verified, address.primary) == ("bob@example.com", False, True)
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.act, event.actor_id, event.data["user"]) == ("user.created", sam.pk, "bob@example.com")
    assert builders.PASSWORD not in str(event.data)
    again = admin.post(reverse("admin:portal_user_add"), form | {"email": "BOB@example.com"})
    assert again.status_code == 200
    assert "Somebody else has this address" in text(again)


@pytest.mark.parametrize(
    "email", ["", "nobody", "\x00@example.com", "x" * 300 + "@example.com", "sam@example.com"]
)
def test_a_bad_address_is_an_error_of_the_form(admin: Client, email: str) -> None:
    form = {"email": email, "usable_password": "false"}
    response = admin.post(reverse("admin:portal_user_add"), form)
    assert response.status_code == 200
    assert "errornote" in text(response)


def test_what_staff_change_of_a_person_is_audited(admin: Client, sam: User) -> None:
    alice = builders.user("alice")
    url = reverse("admin:portal_user_change", args=[alice.pk])
    form = user_form(alice, is_staff="on", email="alice@new.example")
    assert admin.post(url, form).status_code == 302
    alice.refresh_from_db()
    assert (alice.is_staff, alice.email) == (True, "alice@new.example")
    primary = EmailAddress.objects.get(user=alice, primary=True)
    assert (primary.email, primary.verified) == ("alice@new.example", False)
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.act, event.actor_id) == ("user.edited", sam.pk)
    assert event.data["changes"] == {
        "email": ["alice@example.com", "alice@new.example"],
        "is_staff": [False, True],
    }
    verified = user_form(alice, is_staff="on")
    number = [a.email for a in EmailAddress.objects.filter(user=alice)].index("alice@new.example")
    admin.post(url, verified | {f"emailaddress_set-{number}-verified": "on"})
    assert EmailAddress.objects.get(email="alice@new.example").verified
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("untick", [False, True])
def test_an_address_that_staff_replace_lets_nobody_in(admin: Client, untick: bool) -> None:
    alice = builders.user("alice")
    form = user_form(alice, email="alice@new.example")
    if untick:
        del form["emailaddress_set-0-verified"]
    assert admin.post(reverse("admin:portal_user_change", args=[alice.pk]), form).status_code == 302
    assert [each.email for each in EmailAddress.objects.filter(user=alice)] == ["alice@new.example"]
    asked = {"login": "alice@example.com", "password": builders.PASSWORD}
    assert Client().post(reverse("account_login"), asked).status_code == 200
    Client().post(reverse("account_request_login_code"), {"email": "alice@example.com"})
    assert "code" not in mail.outbox[-1].subject


def test_a_person_saved_unchanged_is_no_act(admin: Client) -> None:
    alice = builders.user("alice")
    events = AuditEvent.objects.count()
    url = reverse("admin:portal_user_change", args=[alice.pk])
    assert admin.post(url, user_form(alice)).status_code == 302
    assert AuditEvent.objects.count() == events


def test_a_password_is_set_and_never_written_down(admin: Client) -> None:
    alice = builders.user("alice")
    url = reverse("admin:auth_user_password_change", args=[alice.pk])
    form = {
        "password1": "another long password",
        "password2": "another long password",
        "usable_password": "true",
    }
    assert admin.post(url, form).status_code == 302
    alice.refresh_from_db()
    assert alice.check_password("another long password")
    event = AuditEvent.objects.first()
    assert event is not None
    assert event.act == "user.edited"
    assert event.data == {"user": alice.email, "changes": {"password": [None, "set"]}}


def test_a_groups_powers_are_audited_and_for_superusers_to_give(admin: Client, client: Client) -> None:
    permission = Permission.objects.get(codename="view_key")
    form = {"name": "Support", "permissions": [permission.pk]}
    assert admin.post(reverse("admin:auth_group_add"), form).status_code == 302
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.act, event.data["group"]) == ("group.created", "Support")
    group = Group.objects.get()
    assert admin.post(reverse("admin:auth_group_delete", args=[group.pk]), {"post": "1"}).status_code == 403
    mia = builders.user("mia", is_staff=True)
    mia.user_permissions.set(Permission.objects.filter(codename__in=["change_group", "view_group"]))
    builders.signed_in(client, mia)
    assert client.post(reverse("admin:auth_group_change", args=[group.pk]), form).status_code == 403


def test_nobody_is_deleted(admin: Client) -> None:
    alice = builders.user("alice")
    url = reverse("admin:portal_user_delete", args=[alice.pk])
    assert admin.post(url, {"post": "yes"}).status_code == 403


def test_only_superusers_give_powers_or_change_superusers(client: Client, sam: User) -> None:
    mia = builders.user("mia", is_staff=True)
    mia.user_permissions.set(Permission.objects.filter(codename__in=["change_user", "view_user"]))
    builders.signed_in(client, mia)
    url = reverse("admin:portal_user_change", args=[mia.pk])
    assert client.post(url, user_form(mia, is_superuser="on")).status_code == 302
    mia.refresh_from_db()
    assert not mia.is_superuser
    assert client.post(reverse("admin:portal_user_change", args=[sam.pk]), user_form(sam)).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[sam.pk])
    assert client.post(password, {"password1": "x", "password2": "x"}).status_code == 403


def test_only_superusers_change_others_of_the_staff(client: Client) -> None:
    mia, sue = builders.user("mia", is_staff=True), builders.user("sue", is_staff=True)
    mia.user_permissions.set(Permission.objects.filter(codename__in=["change_user", "view_user"]))
    builders.signed_in(client, mia)
    new = {"usable_password": "true", "password1": "a word of mia's", "password2": "a word of mia's"}
    assert client.post(reverse("admin:auth_user_password_change", args=[sue.pk]), new).status_code == 403
    page = reverse("admin:portal_user_change", args=[sue.pk])
    assert client.post(page, user_form(sue, email="mia@elsewhere.example")).status_code == 403
    sue.refresh_from_db()
    assert (sue.email, sue.check_password(builders.PASSWORD)) == ("sue@example.com", True)


def test_a_history_tells_no_address_to_who_may_not_see_people(client: Client) -> None:
    alice = builders.user("alice")
    invitation = builders.invitation(builders.organization("acme", alice))
    builders.signed_in(client, builders.user("mia", is_staff=True))
    assert client.get(reverse("admin:portal_user_history", args=[alice.pk])).status_code == 403
    assert client.get(reverse("admin:keys_invitation_history", args=[invitation.pk])).status_code == 403


def test_people_are_listed_in_the_same_queries(admin: Client) -> None:
    url = reverse("admin:portal_user_changelist")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(url, {"q": "example"}).status_code == 200
        return len(captured)

    queries()
    few = queries()
    for n in range(8):
        builders.user(f"person{n}")
    assert queries() == few
