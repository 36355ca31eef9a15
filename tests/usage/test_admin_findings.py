"""Findings and retired journals on staff's pages: seen by one person, audited, and never changed."""

import datetime as dt

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from keys.models import AuditEvent
from portal.models import User
from tests import builders
from usage import findings, room
from usage.models import Finding, Spool

pytestmark = pytest.mark.django_db


@pytest.fixture
def finding() -> Finding:
    found = findings.missing(3, 5, 100)
    found.payload = "ab" * 100
    findings.store([found], "aaaaaaaaaaa", 1, timezone.now())
    return Finding.objects.get()


def see(client: Client, *ids: object) -> str:
    """Choose the action and confirm it; what the page says then."""
    url = reverse("admin:usage_finding_changelist")
    form = {"action": "see", "_selected_action": [str(each) for each in ids], "confirmed": "yes"}
    return client.post(url, form, follow=True).content.decode()


def test_a_finding_is_marked_as_seen_once_and_the_audit_says_by_whom(
    admin: Client, sam: User, finding: Finding
) -> None:
    assert "1 finding" in admin.get(reverse("staff")).content.decode()
    assert "1 finding marked as seen." in see(admin, finding.pk)
    finding.refresh_from_db()
    assert finding.seen_by == sam.email
    event = AuditEvent.objects.get(act="finding.seen")
    assert (event.actor_kind, event.actor_id) == ("staff", sam.pk)
    assert "Somebody has seen this before." in see(admin, finding.pk)
    assert AuditEvent.objects.filter(act="finding.seen").count() == 1
    assert "finding in the journals" not in admin.get(reverse("staff")).content.decode()


def test_a_finding_can_be_read_and_neither_changed_nor_deleted(admin: Client, finding: Finding) -> None:
    assert admin.get(reverse("admin:usage_finding_changelist")).status_code == 200
    url = reverse("admin:usage_finding_change", args=[finding.pk])
    page = admin.get(url).content.decode()
    assert "abab" in page
    assert admin.post(url, {"text": "x"}).status_code == 403
    assert admin.post(reverse("admin:usage_finding_delete", args=[finding.pk])).status_code == 403
    assert admin.get(reverse("admin:usage_finding_add")).status_code == 403


def test_staff_without_the_permission_do_not_see_it_off(client: Client, finding: Finding) -> None:
    sue = builders.user("sue", is_staff=True)
    see(builders.signed_in(client, sue), finding.pk)
    finding.refresh_from_db()
    assert finding.seen_at is None


@pytest.mark.parametrize("id", ["x", "9" * 40, "-1", "", "1\0"])
def test_a_finding_that_cannot_be_is_a_clear_answer(admin: Client, finding: Finding, id: str) -> None:
    form = {"action": "see", "_selected_action": [id], "confirmed": "yes"}
    assert admin.post(reverse("admin:usage_finding_changelist"), form).status_code in (302, 400)
    finding.refresh_from_db()
    assert finding.seen_at is None


def test_the_overview_names_the_host_that_counting_waits_for_and_how_to_end_it(admin: Client) -> None:
    now = timezone.now()
    Spool.objects.create(
        id="aaaaaaaaaaa", host="<east>", pid=7, started_at=now, watermark=now - dt.timedelta(hours=3)
    )
    page = admin.get(reverse("staff")).content.decode()
    assert "Counting waits for &lt;east&gt;" in page
    assert "manage.py retire_spool &lt;east&gt;" in page
    Spool.objects.update(watermark=now)
    assert "Counting waits" not in admin.get(reverse("staff")).content.decode()


def test_the_overview_shows_who_was_given_up_on_and_why(admin: Client) -> None:
    now = timezone.now()
    Spool.objects.create(
        id="aaaaaaaaaaa", host="east", pid=7, started_at=now, retired_at=now, retired_reason="its disk burnt"
    )
    page = admin.get(reverse("staff")).content.decode()
    assert "its disk burnt" in page
    assert "Counting waits" not in page


def test_the_overview_says_when_journals_are_nearly_full(admin: Client, settings: Settings) -> None:
    settings.USAGE_JOURNAL_DIR.mkdir(exist_ok=True)
    ballast = settings.USAGE_JOURNAL_DIR / "00000000000.000000.journal"
    try:
        ballast.write_bytes(b"x" * 900_000)
        settings.USAGE_JOURNAL_MAX_BYTES = room.held_bytes(settings.USAGE_JOURNAL_DIR) * 10 // 9
        assert "Journals are nearly full" in admin.get(reverse("staff")).content.decode()
    finally:
        ballast.unlink()
    assert "nearly full" not in admin.get(reverse("staff")).content.decode()
