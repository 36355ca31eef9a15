"""The weekly digest: once a week, to owners and admins, where something new was raised."""

import datetime as dt

import pytest

from keys import lifecycle
from keys.models import Organization
from keys.permissions import Role
from portal import digest
from portal.models import Mail
from tests import builders
from usage import watch
from usage.models import Signal

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
MONDAY = dt.datetime(2026, 6, 15, 9, tzinfo=dt.UTC)
COMMAND = lifecycle.command_actor()


@pytest.fixture
def acme() -> Organization:
    """With one key that has no expiry, noticed a day before MONDAY."""
    organization = builders.organization("acme", owner=builders.user("alice"), now=MONDAY - 9 * DAY)
    key = builders.key(organization, name="Back\u202eend & co", expires_at=None, now=MONDAY - 2 * DAY).key
    watch.refresh([key], MONDAY - DAY)
    return organization


def mails() -> list[tuple[str, str]]:
    return sorted(Mail.objects.values_list("to", "subject"))


def test_owners_and_admins_get_it_once_a_week(acme: Organization) -> None:
    builders.member(builders.user("bob"), acme, Role.ADMIN)
    builders.member(builders.user("charlie"), acme, Role.DEVELOPER)
    for hours in (0, 1, 24, 6 * 24):
        digest.send_due(MONDAY + dt.timedelta(hours=hours))
    subject = "One warning about API keys of Acme"
    assert mails() == [("alice@example.com", subject), ("bob@example.com", subject)]
    text = Mail.objects.all()[0].text
    assert "& co: Never expires (new)\n  It has no expiry." in text
    assert "/o/acme/attention/" in text


def test_a_week_without_anything_new_has_none(acme: Organization) -> None:
    digest.send_due(MONDAY)
    digest.send_due(MONDAY + 7 * DAY)
    assert Mail.objects.count() == 1
    key = builders.key(acme, name="Another", expires_at=None, now=MONDAY + 8 * DAY).key
    watch.refresh([key], MONDAY + 8 * DAY)
    digest.send_due(MONDAY + 9 * DAY)
    second = Mail.objects.latest("pk")
    assert second.subject == "2 warnings about API keys of Acme"
    assert second.text.count("(new)") == 1


def test_what_a_digest_told_of_in_midweek_is_no_news_on_monday(acme: Organization) -> None:
    digest.send_due(MONDAY)
    key = builders.key(acme, name="Another", expires_at=None, now=MONDAY + 8 * DAY).key
    watch.refresh([key], MONDAY + 8 * DAY)
    digest.send_due(MONDAY + 9 * DAY)
    digest.send_due(MONDAY + 14 * DAY)
    assert Mail.objects.count() == 2
    key = builders.key(acme, name="A third", expires_at=None, now=MONDAY + 14 * DAY).key
    watch.refresh([key], MONDAY + 14 * DAY)
    digest.send_due(MONDAY + 14 * DAY)
    third = Mail.objects.latest("pk")
    assert third.subject == "3 warnings about API keys of Acme"
    assert third.text.count("(new)") == 1


def test_before_monday_morning_nothing_is_sent(acme: Organization) -> None:
    digest.send_due(MONDAY.replace(hour=6))
    assert not Mail.objects.exists()


def test_what_was_dismissed_is_not_in_it(acme: Organization) -> None:
    signal = Signal.objects.select_related("organization", "key").get()
    watch.dismiss(COMMAND, signal, snooze=False, now=MONDAY)
    digest.send_due(MONDAY)
    assert not Mail.objects.exists()


def test_a_suspended_organization_gets_none(acme: Organization) -> None:
    lifecycle.suspend_organization(COMMAND, acme, reason="unpaid", now=MONDAY)
    digest.send_due(MONDAY)
    assert not Mail.objects.exists()


def test_a_long_list_is_cut_and_counted(acme: Organization) -> None:
    keys = [builders.key(acme, name=f"Key {n}", expires_at=None, now=MONDAY - DAY).key for n in range(14)]
    watch.refresh(keys, MONDAY - DAY)
    digest.send_due(MONDAY)
    mail = Mail.objects.get()
    assert mail.subject == "15 warnings about API keys of Acme"
    assert "and 5 more" in mail.text
