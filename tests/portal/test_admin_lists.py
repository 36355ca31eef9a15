"""The admin's lists however long, a customer's page with its newest keys, notes, plans and credits, and the
list of invitations."""

import datetime as dt
from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.admin import organizations
from keys.admin.lists import BoundedPaginator, LongLists
from keys.lifecycle import Forbidden
from keys.models import AuditEvent, Invitation, Key, LeakDoor, LeakResponse, Note, Organization
from portal.models import Mail, User
from tests import builders
from usage.billing import Period, accounts, credits
from usage.models import Finding, Spool

pytestmark = pytest.mark.django_db

STAFF = lifecycle.command_actor()


@pytest.fixture
def admin(client: Client) -> Client:
    return builders.signed_in(client, builders.staff("sam"))


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


def address(model: Any, name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200, url
    return len(captured)


def customer(number: int) -> None:
    """One of everything that a list has rows of."""
    now = timezone.now()
    of = builders.organization(f"org-{number}", owner=builders.user(f"user-{number}"))
    key = builders.key(of).key
    lifecycle.report_leak(
        key.secrets.get(), door=LeakDoor.PAGE, place="x", response=LeakResponse.NOTIFY, now=now
    )
    builders.scope_request(of, f"s{number}:write")
    lifecycle.add_note(STAFF, of, f"Note {number}", now=now)
    builders.invitation(of, f"guest-{number}@example.com")
    lifecycle.create_policy(STAFF, slug=f"policy-{number}", name=f"Policy {number}", now=now)
    builders.subscription(of, builders.version(f"plan-{number}"), now - dt.timedelta(days=9))
    accounts.edit_account(STAFF, of, name=f"Name {number}", now=now)
    builders.meter(f"meter-{number}", unit="piece")
    Mail.objects.create(
        once=f"m{number}", to="a@example.com", subject="x", organization=of, queued_at=now, next_try_at=now
    )
    Spool.objects.create(id=f"{number:011}", host="web", pid=number, started_at=now)
    Finding.objects.create(kind="torn", spool=f"{number:011}", segment=1, text="torn", found_at=now)
    credits.give(
        STAFF,
        of,
        original=Period.of(now).previous,
        amount=100,
        currency="EUR",
        reason="Outage",
        now=now,
    )


def test_every_list_takes_the_same_queries_however_long(admin: Client) -> None:
    lists = {str(model): address(model) for model in django_admin.site._registry}
    lists |= {f"{name}, searched": f"{url}?q=e" for name, url in lists.items()}
    customer(0)
    customer(1)
    for url in lists.values():
        admin.get(url)  # what is cached once: content types
    few = {name: queries(admin, url) for name, url in lists.items()}
    for number in range(2, 7):
        customer(number)
    assert {name: queries(admin, url) for name, url in lists.items()} == few
    assert max(few.values()) <= 12


def test_a_long_list_is_counted_no_further_than_pages_go(
    admin: Client, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        builders.key(acme, name=f"Key {number}")
    shown = admin.get(address(Key))
    assert "6 keys" in shown.content.decode()
    assert "More than" not in shown.content.decode()
    monkeypatch.setattr(BoundedPaginator, "most", 4)
    shown = admin.get(address(Key))
    assert "More than 4 keys" in shown.content.decode()
    assert [key.name for key in shown.context["cl"].result_list][:2] == ["Key 5", "Key 4"]
    assert "More than" not in admin.get(address(Key), {"state": "revoked"}).content.decode()


def test_a_list_shows_its_pages_in_order_and_finds_each_word_wherever_it_is(
    admin: Client, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = builders.organization("other")
    for number in range(5):
        builders.key(acme if number % 2 else other, name=f"Key {number}")
    monkeypatch.setattr(LongLists, "list_per_page", 2)

    def shown(**query: str) -> list[str]:
        return [key.name for key in admin.get(address(Key), query).context["cl"].result_list]

    assert [shown(o="1", p=page) for page in "123"] == [["Key 0", "Key 1"], ["Key 2", "Key 3"], ["Key 4"]]
    assert shown(o="-1", all="") == ["Key 4", "Key 3", "Key 2", "Key 1", "Key 0"]
    assert shown(q="acme", o="1") == ["Key 1", "Key 3"]
    assert shown(q='"Key 1" ACM') == ["Key 1"]
    assert shown(q="other", o="1", p="2") == ["Key 4"]
    assert shown(q="acme other") == shown(q="nothing") == []
    assert "Show all" in admin.get(address(Organization), {"q": "acme"}).content.decode()
    assert "Show all" not in admin.get(address(Organization)).content.decode()
    assert shown(q='"') == shown() == ["Key 4", "Key 3"]
    people = admin.get(address(Organization), {"q": "ALICE@exam"}).context["cl"].result_list
    assert people == [acme]
    assert admin.get(address(Organization), {"q": "x " * 2000}).status_code == 200


# --- a customer's page -----------------------------------------------------------------------------


def test_a_customers_page_shows_the_newest_of_everything(admin: Client, acme: Organization) -> None:
    now = timezone.now()
    for number in range(organizations.SHOWN + 2):
        builders.key(acme, name=f"Key-{number:02}", now=now + dt.timedelta(seconds=number))
    lifecycle.add_note(STAFF, acme, "Pays by invoice <b>", now=now)
    builders.subscription(acme, builders.version("gold"), now - dt.timedelta(days=9))
    shown = admin.get(address(Organization, "change", acme.pk)).content.decode()
    assert "Key-11" in shown
    assert "Key-02" in shown
    assert "Key-01" not in shown
    assert "Pays by invoice &lt;b&gt;" in shown
    assert "Gold 1" in shown
    assert reverse("admin:keys_key_changelist") + "?organization=acme" in shown


def test_a_customers_page_takes_the_same_queries_however_much_it_has(
    admin: Client, acme: Organization
) -> None:
    url = address(Organization, "change", acme.pk)

    def more() -> None:
        builders.key(acme)
        lifecycle.add_note(STAFF, acme, "Note", now=timezone.now())

    more()
    queries(admin, url)
    few = queries(admin, url)
    for _ in range(6):
        more()
    assert queries(admin, url) == few


def test_of_many_members_the_first_are_on_the_page_and_can_change(
    admin: Client, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organizations, "MEMBERS", 2)
    for name in ("bob", "charlie"):
        builders.member(builders.user(name), acme)
    shown = admin.get(address(Organization, "change", acme.pk)).content.decode()
    assert "bob@example.com in Acme" in shown
    assert "charlie@example.com in Acme" not in shown
    assert reverse("admin:keys_membership_changelist") + "?organization=acme" in shown


# --- notes ----------------------------------------------------------------------------------------


def test_a_note_is_written_for_staff_alone(admin: Client, acme: Organization) -> None:
    form = {"organization": acme.pk, "text": "Pays by invoice"}
    assert admin.post(address(Note, "add"), form).status_code == 302
    note = Note.objects.get()
    assert (note.organization, note.text, note.written_by) == (acme, "Pays by invoice", "sam@example.com")
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.act, event.organization, event.data["note"]) == ("note.added", None, note.pk)
    assert admin.post(address(Note, "change", note.pk), form | {"text": "x"}).status_code == 403
    alice = builders.signed_in(Client(), User.objects.get(email="alice@example.com"))
    for name in ("activity", "overview"):
        shown = alice.get(reverse(name, args=["acme"])).content.decode()
        assert "Pays by invoice" not in shown
        assert "note" not in shown.lower().replace("notice", "")


@pytest.mark.parametrize("junk", ["", "\x00", "x" * 2001, "x" * 2**20, "\u202e\x07"])
def test_no_junk_in_a_note_is_an_error_of_the_server(admin: Client, acme: Organization, junk: str) -> None:
    response = admin.post(address(Note, "add"), {"organization": acme.pk, "text": junk})
    assert response.status_code < 500
    assert Note.objects.count() == (response.status_code == 302)


def test_members_write_no_notes(acme: Organization) -> None:
    alice = User.objects.get(email="alice@example.com")
    who = lifecycle.member_actor(alice, acme.memberships.get())
    with pytest.raises(Forbidden):
        lifecycle.add_note(who, acme, "x", now=timezone.now())


# --- invitations ----------------------------------------------------------------------------------


def withdrawing(*invitations: Invitation, **more: str) -> dict[str, Any]:
    return {"action": "withdraw", "_selected_action": [each.pk for each in invitations], **more}


def test_invitations_are_found_by_address_customer_and_state(admin: Client, acme: Organization) -> None:
    now = timezone.now()
    builders.invitation(acme, "bob@example.com", now=now - dt.timedelta(days=8))
    builders.invitation(acme, "carol@example.com")
    builders.invitation(builders.organization("other"), "dave@example.com")

    def shown(**query: str) -> list[str]:
        found = admin.get(address(Invitation), query).context["cl"].result_list
        return sorted(each.email.partition("@")[0] for each in found)

    assert shown() == ["bob", "carol", "dave"]
    assert shown(q="carol@ex") == ["carol"]
    assert shown(q="acme") == ["bob", "carol"]
    assert shown(organization="other") == ["dave"]
    assert shown(state="open") == ["carol", "dave"]
    assert shown(state="expired") == ["bob"]
    assert shown(state="accepted") == shown(state="withdrawn") == []
    assert admin.get(address(Invitation), {"q": "\x00"}).status_code == 400


def test_staff_withdraw_invitations_as_their_customer_does(admin: Client, acme: Organization) -> None:
    one, two = builders.invitation(acme), builders.invitation(acme, "carol@example.com")
    assert "can accept them" in admin.post(address(Invitation), withdrawing(one, two)).content.decode()
    assert Invitation.objects.filter(withdrawn_at=None).count() == 2
    for _ in range(2):
        admin.post(address(Invitation), withdrawing(one, two, confirmed="yes"))
    assert not Invitation.objects.filter(withdrawn_at=None).exists()
    assert not Mail.objects.exclude(next_try_at=None).exists()
    events = AuditEvent.objects.filter(act="member.invitation_withdrawn", organization=acme)
    assert [(event.actor_kind, event.actor_label) for event in events] == [("staff", "sam@example.com")] * 2
    page = address(Invitation, "change", one.pk)
    assert "Withdrawn" in admin.get(page).content.decode()
    assert admin.post(page, {"email": "mallory@example.com"}).status_code == 403
    history = admin.get(address(Invitation, "history", one.pk))
    assert history.headers["Location"] == address(AuditEvent) + "?organization=acme"


def test_who_may_only_view_invitations_withdraws_none(acme: Organization) -> None:
    mia = builders.user("mia", is_staff=True)
    mia.user_permissions.add(Permission.objects.get(codename="view_invitation"))
    viewer, one = builders.signed_in(Client(), mia), builders.invitation(acme)
    assert viewer.get(address(Invitation)).status_code == 200
    viewer.post(address(Invitation), withdrawing(one, confirmed="yes"))
    one.refresh_from_db()
    assert one.withdrawn_at is None


def test_what_a_customer_and_a_key_used_is_one_click_away(admin: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    found = {
        address(Organization, "change", acme.pk): "organization=acme",
        address(Key, "change", key.pk): f"key={key.public_id}",
    }
    for page, query in found.items():
        text = admin.get(page).text
        for to in ("staff_usage", "staff_refusals"):
            assert f'href="{reverse(to)}?{query}"' in text
            assert admin.get(f"{reverse(to)}?{query}").status_code == 200
