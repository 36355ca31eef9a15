"""The team: who invites, who may accept and how often, what roles change, and that an owner always stays."""

import datetime as dt
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from pytest_django import Settings

from keys import lifecycle
from keys.audit import Actor
from keys.lifecycle import Conflict, Forbidden, Invalid, Refused, invitations
from keys.models import AuditEvent, Invitation, Membership, Organization
from keys.permissions import Role
from portal import outbox, team
from portal.models import Mail, User
from tests import builders
from tests.threads import at_once

pytestmark = pytest.mark.django_db

NOW = builders.NOW
DAY = dt.timedelta(days=1)
COMMAND = lifecycle.command_actor()
TEAM = "/o/acme/team/"
JUNK = [
    "",
    "\x00",
    "a\x00@b.c",
    "\ud800@example.com",
    "no address",
    "a" * 1_000_000,
    "a@b.c\nBcc: x@y.z",
    "🗝",
]


@pytest.fixture
def owner(db: None) -> User:
    return builders.user("alice")


@pytest.fixture
def acme(owner: User) -> Organization:
    return builders.organization("acme", owner)


@pytest.fixture
def alice(client: Client, acme: Organization, owner: User) -> Client:
    return builders.signed_in(client, owner)


def actor(of: Organization, name: str) -> Actor:
    membership = of.memberships.select_related("user").get(user__email=f"{name}@example.com")
    return lifecycle.member_actor(membership.user, membership)


def roles(of: Organization) -> dict[str, str]:
    """Role by name."""
    rows = of.memberships.values_list("user__email", "role")
    return {email.removesuffix("@example.com"): role for email, role in rows}


def page(invitation: Invitation) -> str:
    return f"/invitations/{invitation.public_id}/"


def accept(client: Client, invitation: Invitation) -> int:
    return client.post(f"{page(invitation)}accept/").status_code


# --- invited --------------------------------------------------------------------------------------


def test_an_invitation_is_mailed_and_accepted(alice: Client, acme: Organization) -> None:
    assert alice.post(f"{TEAM}invite/", {"email": "Bob@Example.com", "role": "billing"}).status_code == 302
    outbox.send_due(timezone.now())
    (message,) = mail.outbox
    assert message.to == ["bob@example.com"]
    assert message.subject == "alice@example.com invites you to Acme"
    link = re.search(r"http://127.0.0.1:8000(/invitations/inv_\w{16}/)", str(message.body))
    assert link
    bob = builders.signed_in(Client(), builders.user("bob"))
    shown = bob.get(link[1]).text
    assert "alice@example.com" in shown
    assert "Billing: Sees usage and billing" in shown
    assert 'href="/home/"' in shown
    reloaded = bob.get(f"{link[1]}accept/")
    assert (reloaded.status_code, reloaded.headers["Location"]) == (302, link[1])
    assert bob.post(f"{link[1]}accept/").headers["Location"] == "/o/acme/"
    assert roles(acme) == {"alice": "owner", "bob": "billing"}
    acts = list(AuditEvent.objects.order_by("number").values_list("act", "actor_label"))[-2:]
    assert acts == [("member.invited", "alice@example.com"), ("member.joined", "bob@example.com")]


def test_an_invitation_is_accepted_once(acme: Organization) -> None:
    invitation = builders.invitation(acme)
    bob = builders.signed_in(Client(), builders.user("bob"))
    assert [accept(bob, invitation) for _ in range(2)] == [302, 409]
    lifecycle.remove_member(COMMAND, acme.memberships.get(role="developer"), now=timezone.now())
    assert accept(bob, invitation) == 409
    assert "has been accepted" in bob.get(page(invitation)).text


@pytest.mark.django_db(transaction=True)
def test_accepted_many_times_at_once_it_makes_one_member(acme: Organization) -> None:
    invitation, bob = builders.invitation(acme), builders.user("bob")

    def join() -> bool:
        try:
            team.accept(bob, invitation, now=timezone.now())
        except Conflict:
            return False
        return True

    assert sorted(map(str, at_once([join] * 4))) == ["False", "False", "False", "True"]
    assert AuditEvent.objects.filter(act="member.joined").count() == 1


def test_another_address_is_refused_with_a_way_out(acme: Organization) -> None:
    invitation = builders.invitation(acme)
    carol = builders.signed_in(Client(), builders.user("carol"))
    shown = carol.get(page(invitation)).text
    assert "You are signed in as carol@example.com" in shown
    assert f'name="next" value="{page(invitation)}"' in shown
    assert accept(carol, invitation) == 409
    assert roles(acme) == {"alice": "owner"}


def test_an_address_that_is_not_confirmed_is_not_ones_own(acme: Organization) -> None:
    invitation, mallory = builders.invitation(acme), builders.user("mallory")
    address = EmailAddress.objects.create(user=mallory, email="bob@example.com", verified=False)
    with pytest.raises(Forbidden):
        team.accept(mallory, invitation, now=timezone.now())
    address.verified = True
    address.save()
    team.accept(mallory, invitation, now=timezone.now())


def test_a_visitor_is_led_to_sign_in_and_back(client: Client, acme: Organization) -> None:
    invitation = builders.invitation(acme)
    shown = client.get(page(invitation)).text
    there = page(invitation).replace("/", "%2F")
    assert f"/accounts/login/?next={there}" in shown
    assert f"/accounts/signup/?next={there}" in shown
    assert accept(client, invitation) == 302
    builders.user("bob")
    signed = client.post(
        "/accounts/login/",
        {"login": "bob@example.com", "password": builders.PASSWORD, "next": page(invitation)},
    )
    assert signed.headers["Location"] == page(invitation)


def test_invitations_are_forgotten_long_after_their_end(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        builders.invitation(acme, f"guest-{number}@example.com", now=NOW)
    gone, late = builders.invitation(acme, now=NOW), builders.invitation(acme, "carol@example.com", now=NOW)
    lifecycle.resend_invitation(COMMAND, late, now=NOW + DAY)
    monkeypatch.setattr(invitations, "_BATCH", 2)
    end = NOW + invitations.LIFETIME + invitations.KEEP
    assert lifecycle.forget_invitations(now=end) == 0
    assert lifecycle.forget_invitations(now=end + DAY, stop=lambda: True) == 0
    assert lifecycle.forget_invitations(now=end + DAY) == 4
    assert Invitation.objects.get() == late
    assert AuditEvent.objects.filter(act="member.invited").count() == 5
    with pytest.raises(Conflict, match="long ago"):
        lifecycle.resend_invitation(COMMAND, gone, now=end + DAY)


def test_an_invitation_ends_after_a_week_and_can_be_sent_again(acme: Organization) -> None:
    bob = builders.user("bob")
    invitation = builders.invitation(acme, now=NOW)
    with pytest.raises(Conflict):
        team.accept(bob, invitation, now=NOW + 7 * DAY)
    with pytest.raises(Conflict):
        team.resend(COMMAND, invitation, now=NOW + dt.timedelta(minutes=59))
    team.resend(COMMAND, invitation, now=NOW + 8 * DAY)
    assert Mail.objects.filter(to="bob@example.com").count() == 1  # the first had not left yet
    team.accept(bob, invitation, now=NOW + 8 * DAY)


def test_a_withdrawn_one_lets_nobody_in_and_its_mail_is_not_sent(alice: Client, acme: Organization) -> None:
    invitation, bob = builders.invitation(acme), builders.signed_in(Client(), builders.user("bob"))
    there = f"{TEAM}invitations/{invitation.public_id}/"
    assert "bob@example.com" in alice.get(f"{there}withdraw/").text
    assert [alice.post(f"{there}withdraw/").status_code for _ in range(2)] == [302, 302]
    assert not Mail.objects.exists()
    assert accept(bob, invitation) == 409
    assert "has been withdrawn" in bob.get(page(invitation)).text
    alice.post(f"{there}resend/")
    assert not Mail.objects.exists()
    assert AuditEvent.objects.filter(act="member.invitation_withdrawn").count() == 1


def test_an_address_is_invited_once_at_a_time_and_anew_after_it_ended(acme: Organization) -> None:
    builders.invitation(acme, now=NOW)
    with pytest.raises(Conflict, match="invited already"):
        builders.invitation(acme, "BOB@example.com", now=NOW + DAY)
    with pytest.raises(Conflict, match="member already"):
        builders.invitation(acme, "alice@example.com", now=NOW)
    builders.invitation(acme, now=NOW + 8 * DAY)
    assert acme.invitations.filter(withdrawn_at=None).count() == 1


def test_a_day_has_fifty_invitations(acme: Organization) -> None:
    sent: dict[str, Any] = {"role": "viewer", "created_at": NOW, "sent_at": NOW, "expires_at": NOW + DAY}
    acme.invitations.bulk_create(
        Invitation(organization=acme, email=f"n{number}@example.com", **sent) for number in range(49)
    )
    builders.invitation(acme, "last@example.com", now=NOW)
    with pytest.raises(Conflict, match="tomorrow"):
        builders.invitation(acme, now=NOW)
    builders.invitation(acme, now=NOW + DAY)


def test_it_can_do_no_more_than_its_sender_still_may(acme: Organization) -> None:
    bob = builders.user("bob")
    builders.member(builders.user("carol"), acme, Role.ADMIN)
    invitation = builders.invitation(acme, actor=actor(acme, "carol"))
    lifecycle.change_role(COMMAND, acme.memberships.get(role="admin"), Role.DEVELOPER, now=timezone.now())
    with pytest.raises(Conflict, match="no longer"):
        team.accept(bob, invitation, now=timezone.now())
    assert roles(acme) == {"alice": "owner", "carol": "developer"}


def test_an_invitation_ends_with_its_senders_account(acme: Organization) -> None:
    carol = builders.user("carol")
    builders.member(carol, acme, Role.ADMIN)
    invitation = builders.invitation(acme, actor=actor(acme, "carol"))
    carol.is_active = False
    carol.save(update_fields=["is_active"])
    with pytest.raises(Conflict, match="no longer"):
        team.accept(builders.user("bob"), invitation, now=timezone.now())


def test_an_admin_invites_no_owner(acme: Organization) -> None:
    carol = builders.user("carol")
    builders.member(carol, acme, Role.ADMIN)
    client = builders.signed_in(Client(), carol)
    assert 'value="owner"' not in client.get(f"{TEAM}invite/").text
    client.post(f"{TEAM}invite/", {"email": "bob@example.com", "role": "owner"})
    with pytest.raises(Forbidden):
        builders.invitation(acme, role=Role.OWNER, actor=actor(acme, "carol"))
    mine = builders.invitation(acme, role=Role.OWNER)
    with pytest.raises(Forbidden):
        team.withdraw(actor(acme, "carol"), mine, now=timezone.now())
    assert acme.invitations.get() == mine


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_junk_invites_nobody(alice: Client, acme: Organization, junk: str) -> None:
    for fields in ({"email": junk, "role": "viewer"}, {"email": "bob@example.com", "role": junk}):
        body = urlencode(fields, errors="surrogatepass")
        sent = alice.post(f"{TEAM}invite/", body, content_type="application/x-www-form-urlencoded")
        assert sent.status_code in (200, 400)
    with pytest.raises(Invalid):
        builders.invitation(acme, junk)
    assert not acme.invitations.exists()


def test_another_organizations_invitations_and_members_are_no_pages(alice: Client) -> None:
    other = builders.organization("other", builders.user("zoe"))
    invitation, zoe = builders.invitation(other), other.memberships.get()
    for path in (
        f"invitations/{invitation.public_id}/withdraw/",
        f"invitations/{invitation.public_id}/resend/",
        f"{zoe.pk}/",
        f"{zoe.pk}/remove/",
        "999999999999999999/",
    ):
        assert alice.get(TEAM + path).status_code == alice.post(TEAM + path).status_code == 404
    alice.post(f"{TEAM}transfer/", {"to": zoe.pk, "agreed": "on"})
    assert roles(other) == {"zoe": "owner"}


# --- sign-up by invitation ------------------------------------------------------------------------


def test_by_invitation_only_the_invited_address_signs_up(
    client: Client, acme: Organization, settings: Settings
) -> None:
    cache.clear()
    settings.SIGNUP = "invite"
    invitation = builders.invitation(acme)
    new = {"password1": builders.PASSWORD, "next": page(invitation)}
    assert 'value="bob@example.com"' in client.get(f"/accounts/signup/?next={page(invitation)}").text
    client.post("/accounts/signup/", new | {"email": "carol@example.com"})
    client.post("/accounts/signup/", new | {"email": "bob@example.com", "next": "/invitations/inv_x/"})
    assert not User.objects.filter(email__in=["bob@example.com", "carol@example.com"]).exists()
    client.post("/accounts/signup/", new | {"email": "bob@example.com"})
    code = str(mail.outbox[-1].subject).split()[0]
    done = client.post("/accounts/confirm-email/", {"code": code})
    assert done.headers["Location"] == page(invitation)
    assert accept(client, invitation) == 302
    assert roles(acme) == {"alice": "owner", "bob": "developer"}


def test_an_invitation_that_ended_opens_no_sign_up(
    client: Client, acme: Organization, settings: Settings
) -> None:
    cache.clear()
    settings.SIGNUP = "invite"
    invitation = builders.invitation(acme)
    team.withdraw(COMMAND, invitation, now=timezone.now())
    assert "by invitation" in client.get(f"/accounts/signup/?next={page(invitation)}").text


# --- members --------------------------------------------------------------------------------------


def test_the_page_lists_members_and_what_roles_may_do(alice: Client, acme: Organization) -> None:
    builders.member(builders.user("bob"), acme, Role.BILLING)
    builders.invitation(acme, "carol@example.com")
    html = alice.get(TEAM).text
    assert "bob@example.com" in html
    assert "carol@example.com" in html
    assert "Sees usage and billing, and sets alerts; cannot touch keys." in html
    assert "Invite people, change roles, remove members" in html


def test_the_page_asks_as_often_for_many_as_for_few(alice: Client, acme: Organization) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            assert alice.get(TEAM).status_code == 200
        return len(found)

    builders.invitation(acme)
    few = queries()
    for number in range(5):
        builders.member(builders.user(f"n{number}"), acme)
        builders.invitation(acme, f"m{number}@example.com")
    assert queries() == few <= 12


def test_who_may_not_manage_sees_neither_invitations_nor_buttons(acme: Organization) -> None:
    builders.invitation(acme, "carol@example.com")
    bob = builders.user("bob")
    builders.member(bob, acme)
    html = builders.signed_in(Client(), bob).get(TEAM).text
    assert "carol@example.com" not in html
    for word in ("Change role", "Remove", "Transfer ownership", f"{TEAM}invite/"):
        assert word not in html


def test_a_role_is_changed_and_a_member_removed(alice: Client, acme: Organization) -> None:
    bob = builders.user("bob")
    membership = builders.member(bob, acme)
    assert alice.post(f"{TEAM}{membership.pk}/", {"role": "viewer"}).status_code == 302
    assert roles(acme)["bob"] == "viewer"
    acme.keys.filter(pk=builders.key(acme).key.pk).update(created_by=bob)
    assert "1 key that this member made keeps working" in alice.get(f"{TEAM}{membership.pk}/remove/").text
    assert alice.post(f"{TEAM}{membership.pk}/remove/").status_code == 302
    assert "bob" not in roles(acme)
    assert builders.signed_in(Client(), bob).get("/o/acme/").status_code == 404


def test_the_only_owner_cannot_leave_and_hears_why(alice: Client, acme: Organization) -> None:
    assert "needs an owner" in alice.post(f"{TEAM}leave/", follow=True).text
    assert roles(acme) == {"alice": "owner"}


def test_the_only_owner_is_told_before_leaving_what_comes_first(alice: Client, acme: Organization) -> None:
    page = alice.get(f"{TEAM}leave/").text
    assert "You are the only owner" in page
    assert f'href="{TEAM}transfer/"' in page
    assert 'method="post" novalidate' not in alice.get(f"{TEAM}transfer/").text
    assert f'href="{TEAM}invite/"' in alice.get(f"{TEAM}transfer/").text
    builders.member(builders.user("carol", is_active=False), acme, Role.OWNER)  # who cannot take over
    assert "You are the only owner" in alice.get(f"{TEAM}leave/").text
    assert f'href="{TEAM}invite/"' in alice.get(f"{TEAM}transfer/").text
    builders.member(builders.user("bob"), acme, Role.OWNER)
    assert "Leave Acme?" in alice.get(f"{TEAM}leave/").text


def test_a_member_leaves(acme: Organization) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.VIEWER)
    client = builders.signed_in(Client(), bob)
    assert client.post(f"{TEAM}leave/").headers["Location"] == "/home/"
    assert roles(acme) == {"alice": "owner"}


def test_ownership_is_handed_over_in_one_step(alice: Client, acme: Organization) -> None:
    membership = builders.member(builders.user("bob"), acme)
    fields = {"to": str(membership.pk)}
    alice.post(f"{TEAM}transfer/", fields)
    assert roles(acme) == {"alice": "owner", "bob": "developer"}
    assert alice.post(f"{TEAM}transfer/", fields | {"agreed": "on"}).status_code == 302
    assert roles(acme) == {"alice": "admin", "bob": "owner"}
    assert alice.get(f"{TEAM}transfer/").status_code == 403
    assert AuditEvent.objects.get(act="organization.transferred").data["owner"] == [
        "alice@example.com",
        "bob@example.com",
    ]


class Owners(TestCase):
    """Whatever members do to one another, in any order."""

    @settings(max_examples=25)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.integers(0, 3),
                st.sampled_from(["change", "remove", "transfer", "invite"]),
                st.sampled_from(list(Role)),
            ),
            max_size=8,
        )
    )
    def test_an_owner_stays_and_only_owners_make_owners(self, acts: list[tuple[int, int, str, Role]]) -> None:
        names = ("a", "b", "c", "d")
        people = [User.objects.get_or_create(email=f"{name}@example.com")[0] for name in names]
        acme = Organization.objects.filter(slug="acme").first() or builders.organization("acme", people[0])
        for person, role in zip(people[1:], (Role.ADMIN, Role.DEVELOPER, Role.VIEWER), strict=True):
            if not acme.memberships.filter(user=person).exists():
                builders.member(person, acme, role)
        for who, whom, act, role in acts:
            before = roles(acme)
            try:
                self.do(acme, people[who], people[whom], act, role)
            except (Refused, Membership.DoesNotExist):
                assert roles(acme) == before
            after = roles(acme)
            assert "owner" in after.values()
            if before.get(names[who]) != "owner":
                owners = {name for name, held in before.items() if held == "owner"}
                if act == "invite" and after != before:
                    owners.discard(names[whom])  # whom a command took out, so that they could be invited
                assert {name for name, held in after.items() if held == "owner"} == owners

    def do(self, acme: Organization, who: User, whom: User, act: str, role: Role) -> None:
        mine = lifecycle.member_actor(who, acme.memberships.get(user=who))
        theirs = acme.memberships.get(user=whom)
        match act:
            case "change":
                lifecycle.change_role(mine, theirs, role, now=NOW)
            case "remove":
                lifecycle.remove_member(mine, theirs, now=NOW)
            case "transfer":
                lifecycle.transfer_ownership(mine, acme, theirs, now=NOW)
            case _:
                with transaction.atomic():
                    lifecycle.remove_member(COMMAND, theirs, now=NOW)
                    invitation = lifecycle.invite(mine, acme, email=whom.email, role=role, now=NOW)
                    lifecycle.accept_invitation(whom, invitation, confirmed=[whom.email], now=NOW)
