"""The admin's index: what its overview counts, and what it leads to."""

import datetime as dt

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import LeakDoor, LeakResponse
from portal.admin_overview import Overview, change, overview
from portal.models import Mail, User
from tests import builders
from tests.builders import queries, text
from tests.portal.test_staff import count, spool
from usage import staff_reports
from usage.models import Finding, Signal

pytestmark = pytest.mark.django_db


def index(client: Client) -> Overview:
    found: Overview = client.get(reverse("admin:index")).context["overview"]
    return found


def test_the_index_compares_today_with_yesterday_and_names_the_top_refusal(db: None) -> None:
    now = builders.NOW
    key = builders.key(builders.organization("acme")).key
    yesterday = now - dt.timedelta(days=1)
    count(key, now, 1000)  # this hour, which is not over
    count(key, now - dt.timedelta(hours=1), 150)
    count(key, yesterday - dt.timedelta(hours=1), 100)
    count(key, yesterday, 7000)
    count(key, yesterday, 9, "REVOKED")
    count(key, now, 3, "EXPIRED")
    count(key, now, 2, "REVOKED")
    today = staff_reports.today(now)
    assert (today.accepted, today.refused) == (1150, 5)
    assert today.reasons == [("EXPIRED", 3), ("REVOKED", 2)]
    assert (today.accepted_until, today.accepted_yesterday) == (150, 100)
    assert overview(now).traffic.change == "50% more than yesterday by 12:00 UTC"
    assert overview(now).traffic.refused == "0.43% of all, mostly expired"


@pytest.mark.parametrize(
    ("today", "yesterday", "words"),
    [
        (0, 0, "None yesterday by 12:00 UTC"),
        (9, 0, "None yesterday by 12:00 UTC"),
        (0, 9, "100% fewer than yesterday by 12:00 UTC"),
        (1001, 1000, "As many as yesterday by 12:00 UTC"),
        (50_000, 1000, "50 times yesterday’s by 12:00 UTC"),
    ],
)
def test_a_day_is_compared_in_words(today: int, yesterday: int, words: str) -> None:
    until = builders.NOW
    assert change(staff_reports.Today(today, 0, [], until, today, yesterday)) == words


def test_the_index_shows_what_waits_and_leads_to_it(admin: Client) -> None:
    now = timezone.now()
    assert index(admin).tasks == []
    acme = builders.organization("acme")
    policy = acme.policy
    policy.approval_scopes.add(builders.scope("orders:refund"))
    key = builders.key(acme).key
    lifecycle.request_scope(lifecycle.command_actor(), key, "orders:refund", reason="Refunds", now=now)
    secret = key.secrets.get()
    lifecycle.report_leak(secret, door=LeakDoor.PAGE, place="x", response=LeakResponse.NOTIFY, now=now)
    Mail.objects.create(once="a", to="a@example.com", subject="Hello", queued_at=now, next_try_at=None)
    Finding.objects.create(kind="torn", spool="a" * 11, segment=1, text="torn", found_at=now)
    spool("aaaaaaaaaaa", now - dt.timedelta(hours=2), None)
    shown = index(admin)
    assert [(task.text.partition(" since")[0], task.tone) for task in shown.tasks] == [
        ("Counting waits for host-aaaaaaaaaaa", "bad"),
        ("1 finding in the journals that nobody has seen", "warn"),
        ("1 leaked key still works", "bad"),
        ("1 request for a scope waits", "warn"),
        ("1 mail of the last 7 days could not be sent", "warn"),
    ]
    assert [each.spool.id for each in shown.counting.behind] == ["aaaaaaaaaaa"]
    for task in shown.tasks:
        assert admin.get(task.url).status_code == 200
    lifecycle.revoke_key(lifecycle.command_actor(), key, reason="Leaked", now=now)
    assert "leaked" not in str(index(admin).tasks)


def test_the_index_ranks_keys_at_risk_and_lists_the_newest_customers(admin: Client) -> None:
    now = timezone.now()
    keys = [builders.key(builders.organization(f"org-{n}")).key for n in range(7)]
    for key, points in zip(keys, (5, 40, 10, 10, 1, 2, 3), strict=True):
        Signal.objects.create(
            organization=key.organization,
            key=key,
            kind="no_expiry",
            points=points,
            raised_at=now,
            found_at=now,
        )
    dismissed = keys[1].signals.get()
    dismissed.dismissed_at = now
    dismissed.save(update_fields=["dismissed_at"])
    shown = index(admin)
    assert [(row.key, row.score) for row in shown.keys] == [
        (keys[2], 10),
        (keys[3], 10),
        (keys[0], 5),
        (keys[6], 3),
        (keys[5], 2),
    ]
    assert [each.slug for each in shown.newest] == ["org-6", "org-5", "org-4", "org-3", "org-2"]


def test_the_index_takes_the_same_queries_however_much_there_is(admin: Client) -> None:
    now = timezone.now()

    def more(start: int, end: int) -> None:
        for n in range(start, end):
            key = builders.key(builders.organization(f"org-{n}")).key
            count(key, now, 1)
            count(key, now, 1, "EXPIRED")
            Signal.objects.create(
                organization=key.organization, key=key, kind="idle", points=n, raised_at=now, found_at=now
            )
            spool(f"{n:011}", now, now)

    more(0, 2)
    few = queries(admin, reverse("admin:index"))
    more(2, 9)
    assert queries(admin, reverse("admin:index")) == few
    assert few <= 28


def test_journals_can_be_read_and_nothing_else(admin: Client) -> None:
    now = timezone.now()
    spool("aaaaaaaaaaa", now, None).segments.create(number=1)
    assert admin.get(reverse("admin:usage_spool_changelist")).status_code == 200
    url = reverse("admin:usage_spool_change", args=["aaaaaaaaaaa"])
    assert "Save" not in text(admin.get(url))
    assert admin.post(url, {"host": "x"}).status_code == 403
    assert admin.get(reverse("admin:usage_spool_add")).status_code == 403


def test_the_index_lists_what_a_person_did_from_the_audit(admin: Client, sam: User) -> None:
    lifecycle.create_scope(lifecycle.staff_actor(sam), name="orders:read", description="", now=timezone.now())
    assert "scope.created" in text(admin.get(reverse("admin:index")))
