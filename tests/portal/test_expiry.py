"""Who is told of an expiry, when, and that everybody is told once."""

import datetime as dt
import re
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from keys import brownouts, lifecycle
from keys.lifecycle import Issued
from keys.lifecycle.organizations import standard_policy
from keys.models import Key, Organization
from keys.permissions import Role
from portal import expiry, outbox
from portal.models import Mail, Reminder, User
from tests import builders
from tests.builders import NOW
from tests.threads import at_once

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
ALICE, BOB = "alice@example.com", "bob@example.com"
MADE = NOW - 90 * DAY


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"), now=MADE)


@pytest.fixture
def bob(acme: Organization) -> User:
    person = builders.user("bob")
    builders.member(person, acme, now=MADE)
    return person


def key(of: Organization, expires_at: dt.datetime, *, name: str = "Backend", by: User | None = None) -> Key:
    """A key of 90 days ago, made by this person."""
    actor = lifecycle.command_actor()
    if by is not None:
        actor = lifecycle.member_actor(by, of.memberships.get(user=by))
    return lifecycle.create_key(actor, of, name=name, expires_at=expires_at, now=MADE).key


def mails() -> list[tuple[str, str]]:
    return [(mail.to, mail.subject) for mail in Mail.objects.order_by("pk")]


def days_told(of: Key) -> list[int]:
    return sorted(Reminder.objects.filter(key=of).values_list("days", flat=True))


def test_a_key_is_told_of_four_times_on_its_way_out(acme: Organization) -> None:
    made = key(acme, NOW)
    moments = [NOW + dt.timedelta(hours=hours) for hours in range(-31 * 24 - 12, 36, 12)]
    told = [f"{moment:%Y-%m-%dT%H}" for moment in moments if expiry.remind(moment)]
    assert told == ["2026-05-16T00", "2026-06-08T00", "2026-06-14T00", "2026-06-15T00"]
    assert days_told(made) == [0, 1, 7, 30]
    assert mails() == [
        (ALICE, "Backend of Acme expires in 30 days"),
        (ALICE, "Backend of Acme expires in 7 days"),
        (ALICE, "Backend of Acme expires in 1 day"),
        (ALICE, "Backend of Acme expires in 12 hours"),
    ]


def test_its_maker_and_the_owners_are_told_each_of_what_is_theirs(acme: Organization, bob: User) -> None:
    builders.member(builders.user("charlie"), acme, Role.ADMIN)
    key(acme, NOW + 7 * DAY, name="Alice's", by=acme.memberships.get(user__email=ALICE).user)
    key(acme, NOW + 7 * DAY, name="Bob's", by=bob)
    expiry.remind(NOW)
    assert mails() == [
        (ALICE, "2 API keys of Acme: the first expires in 7 days"),
        (BOB, "Bob's of Acme expires in 7 days"),
    ]
    assert "Alice's" not in Mail.objects.get(to=BOB).text


def test_a_maker_who_has_left_is_told_nothing(acme: Organization, bob: User) -> None:
    key(acme, NOW + 7 * DAY, by=bob)
    acme.memberships.filter(user=bob).delete()
    expiry.remind(NOW)
    assert [to for to, _ in mails()] == [ALICE]


def test_keys_that_expire_on_one_day_are_in_one_mail(acme: Organization) -> None:
    for hour in range(24):
        key(acme, dt.datetime(2026, 6, 22, hour, 30, tzinfo=dt.UTC), name=f"Key {hour:02}")
    assert expiry.remind(dt.datetime(2026, 6, 15, 0, 1, tzinfo=dt.UTC)) == 24
    (mail,) = Mail.objects.all()
    assert [line for line in mail.text.split("\n") if "(live)" in line] == [
        f"  Key {hour:02} (live) expires in 7 days" for hour in range(24)
    ]


def test_a_very_long_list_says_how_many_more(acme: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LISTED", 2)
    for number in range(5):
        key(acme, NOW + 7 * DAY, name=f"Key {number}")
    expiry.remind(NOW)
    text = Mail.objects.get().text
    assert text.count("(live)") == 2
    assert "and 3 more" in text


def test_after_a_pause_only_the_nearest_mail_is_sent(acme: Organization) -> None:
    made = key(acme, NOW + DAY)
    expiry.remind(NOW - 27 * DAY)
    expiry.remind(NOW)  # the worker was off for 27 days
    expiry.remind(NOW + dt.timedelta(hours=1))
    assert days_told(made) == [1, 30]


def test_what_is_over_for_a_day_is_no_news(acme: Organization) -> None:
    key(acme, NOW)
    assert expiry.remind(NOW + dt.timedelta(hours=23)) == 1
    assert "has expired" in mails()[0][1]
    key(acme, NOW, name="Other")
    assert expiry.remind(NOW + DAY) == 0


def test_who_makes_a_key_for_a_week_is_not_told_at_once(acme: Organization) -> None:
    made = builders.key(acme, expires_at=NOW + 7 * DAY, now=NOW).key
    assert expiry.remind(NOW + dt.timedelta(minutes=1)) == 0
    assert expiry.remind(NOW + 6 * DAY) == 1
    assert days_told(made) == [1]


def test_a_key_with_a_new_expiry_is_told_of_anew(acme: Organization) -> None:
    made = key(acme, NOW + 7 * DAY)
    expiry.remind(NOW)
    lifecycle.edit_key(lifecycle.command_actor(), made, expires_at=NOW + 60 * DAY, now=NOW)
    assert expiry.remind(NOW + DAY) == 0
    assert expiry.remind(NOW + 30 * DAY) == 1
    assert days_told(made) == [7, 30]


@pytest.mark.parametrize(
    "act",
    [
        lambda key: lifecycle.revoke_key(lifecycle.command_actor(), key, now=NOW),
        lambda key: lifecycle.disable_key(lifecycle.command_actor(), key, now=NOW),
        lambda key: lifecycle.edit_key(lifecycle.command_actor(), key, expires_at=None, now=NOW),
        lambda key: lifecycle.suspend_organization(
            lifecycle.command_actor(), key.organization, reason="", now=NOW
        ),
    ],
    ids=["revoked", "disabled", "without expiry", "suspended"],
)
def test_nothing_stale_is_sent(acme: Organization, act: Callable[[Key], object]) -> None:
    made = key(acme, NOW + 7 * DAY)
    expiry.remind(NOW)
    assert Mail.objects.exists()
    act(made)  # while the mail server is away
    expiry.remind(NOW)
    assert not Mail.objects.exists()
    other = key(builders.organization("globex", now=MADE), NOW + 7 * DAY)
    act(other)  # before anything was queued
    assert expiry.remind(NOW) == 0


def test_a_waiting_mail_leaves_out_what_was_renewed_meanwhile(acme: Organization) -> None:
    renewed = key(acme, NOW + 7 * DAY, name="Renewed")
    key(acme, NOW + 7 * DAY, name="Left")
    expiry.remind(NOW)
    lifecycle.edit_key(lifecycle.command_actor(), renewed, expires_at=NOW + 90 * DAY, now=NOW)
    expiry.remind(NOW)
    assert mails() == [(ALICE, "Left of Acme expires in 7 days")]
    assert "Renewed" not in Mail.objects.get().text


def test_a_mail_that_went_is_not_taken_back(acme: Organization) -> None:
    made = key(acme, NOW + 7 * DAY)
    expiry.remind(NOW)
    outbox.send_due(NOW)
    lifecycle.revoke_key(lifecycle.command_actor(), made, now=NOW)
    expiry.remind(NOW)
    assert Mail.objects.get().state == "sent"


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_tell_once(acme: Organization) -> None:
    for number in range(5):
        key(acme, NOW + 7 * DAY, name=f"Key {number}")
    assert sorted(at_once([lambda: expiry.remind(NOW)] * 3), key=str) == [0, 0, 5]
    assert Reminder.objects.count() == 5
    assert len(mails()) == 1


def test_a_mail_holds_no_secret_and_leads_to_the_key(acme: Organization) -> None:
    issued: Issued = builders.key(acme, name="<b>& Söhne", expires_at=NOW + 7 * DAY, now=MADE)
    expiry.remind(NOW)
    mail = Mail.objects.get()
    assert mail.subject == "<b>& Söhne of Acme expires in 7 days"
    assert f"http://127.0.0.1:8000/o/acme/keys/{issued.key.public_id}/" in mail.text
    assert "22 June 2026, 12:00 UTC" in mail.text
    assert issued.secret.hint not in mail.subject + mail.text
    assert not re.search(r"&\w+;|[{}]", mail.subject + mail.text)


def test_a_mail_announces_the_brownouts_to_come(acme: Organization) -> None:
    lifecycle.edit_policy(lifecycle.command_actor(), standard_policy(), brownout_days=7, now=NOW)
    made = key(acme, NOW + 7 * DAY)
    expiry.remind(NOW)
    text = Mail.objects.get().text
    coming = brownouts.to_come(made.public_id, made.created_at, made.expires_at, 7, NOW)
    assert len(coming) in (7, 8)
    assert [line for line in text.split("\n") if line.startswith("  brownout")] == [
        f"  brownout {at:%-d %B %Y, %H:%M} UTC" for at in coming
    ]
    assert "for two minutes" in text


def test_what_was_told_long_ago_is_forgotten(acme: Organization) -> None:
    key(acme, NOW + DAY)
    expiry.remind(NOW)
    expiry.forget(NOW + 100 * DAY)
    assert Reminder.objects.count() == 1
    expiry.forget(NOW + 200 * DAY)
    assert not Reminder.objects.exists()


MOMENTS = st.timedeltas(dt.timedelta(), 100 * DAY).map(lambda later: NOW + later)


@given(expires_at=MOMENTS, now=MOMENTS)
def test_the_window_that_is_asked_for_is_the_one_that_is_due(
    expires_at: dt.datetime, now: dt.datetime
) -> None:
    asked = [days for days, after, until in expiry._windows(now) if after < expires_at <= until]
    found = expiry.due(expires_at, dt.datetime(2025, 1, 1, tzinfo=dt.UTC), now)
    assert asked == ([] if found is None else [found])


@given(expires_at=MOMENTS, made=st.timedeltas(dt.timedelta(), 100 * DAY), now=MOMENTS)
def test_nobody_is_told_on_the_day_that_they_made_it(
    expires_at: dt.datetime, made: dt.timedelta, now: dt.datetime
) -> None:
    days = expiry.due(expires_at, now - made, now)
    if days is not None:
        assert made > dt.timedelta()
        assert now < expires_at + DAY
        assert (expires_at - now).days <= days
        if days:
            assert (now - made).date() < now.date()


# --- on pages ---


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, User.objects.get(email=ALICE))


def test_pages_say_how_many_keys_expire_and_lead_to_them(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    overview, keys = (reverse(name, args=["acme"]) for name in ("overview", "keys"))
    builders.key(acme, name="Later", expires_at=now + 31 * DAY)
    assert "within 30 days</p>" not in alice.get(overview).text + alice.get(keys).text
    builders.key(acme, name="Soon", expires_at=now + 29 * DAY)
    for page in (overview, keys):
        assert "1 key expires within 30 days" in alice.get(page).text
        assert f'<a href="{keys}?state=expiring">Show it</a>' in alice.get(page).text
    builders.key(acme, name="Sooner", expires_at=now + 2 * DAY)
    assert "2 keys expire within 30 days" in alice.get(overview).text
    shown = alice.get(keys + "?state=expiring").text
    assert "Sooner" in shown
    assert "Later" not in shown
    assert "2 keys expire within" not in shown


def test_a_key_that_expires_soon_says_how_to_renew_it(alice: Client, acme: Organization) -> None:
    made = builders.key(acme, expires_at=timezone.now() + 3 * DAY).key
    url = reverse("key", args=["acme", made.public_id])
    assert (
        f'href="{reverse("key_rotate", args=["acme", made.public_id])}">Rotate and renew'
        in alice.get(url).text
    )
    viewer = builders.user("vera")
    builders.member(viewer, acme, Role.VIEWER)
    text = builders.signed_in(Client(), viewer).get(url).text
    assert "This key expires soon" in text
    assert "Someone with the developer role can renew it." in text
    assert "Rotate and renew" not in text


def test_a_key_lists_its_brownouts(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    made = builders.key(acme, expires_at=now + 6 * DAY, now=now - 80 * DAY).key
    url = reverse("key", args=["acme", made.public_id])
    assert "BROWNOUT" not in alice.get(url).text
    lifecycle.edit_policy(lifecycle.command_actor(), standard_policy(), brownout_days=5, now=now)
    coming = brownouts.to_come(made.public_id, made.created_at, made.expires_at, 5, now)
    assert coming
    text = alice.get(url).text
    assert [f"{at:%-d %b %Y, %H:%M} UTC" in text for at in coming] == [True] * len(coming)
    lifecycle.disable_key(lifecycle.command_actor(), made, now=now)
    assert "BROWNOUT" not in alice.get(url).text
