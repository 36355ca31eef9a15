"""Closed months, proved again: each thing that could be changed behind the portal's back is named."""

import datetime as dt
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from keys import lifecycle
from keys.models import AuditEvent, Key
from tests import builders
from tests.usage.journals import Clock, call
from usage import drain
from usage.billing import Period, closing, verifying
from usage.journal import Journal
from usage.models import (
    ClosedPeriod,
    Price,
    Rollup,
    Segment,
    StatementLine,
    Subscription,
    Verification,
)

MAY, JUNE, JULY = (Period(2026, month) for month in (5, 6, 7))


@pytest.fixture
def key(db: None, journal_dir: Path, settings: Settings) -> Key:
    """Of a customer whose May and June are closed, with late usage and a second line."""
    settings.BILLING_GRACE_HOURS = 0
    key = builders.key(builders.organization("acme")).key
    version = builders.version("basic", fee=3100, requests={"unit_price": "0.01", "included": 10})
    builders.subscription(key.organization, version, MAY.start)
    builders.used(key, 15, MAY.start)
    closing.close(MAY, lifecycle.command_actor(), now=MAY.end)
    builders.used(key, 7, MAY.start, booked=JUNE.first_day)
    builders.used(key, 30, JUNE.start)
    closing.close(JUNE, lifecycle.command_actor(), now=JUNE.end)
    return key


def verify(*argv: str) -> list[str]:
    """What it prints."""
    out = io.StringIO()
    call_command("verify_billing", *argv, stdout=out, stderr=io.StringIO())
    return out.getvalue().splitlines()


def differs(*argv: str) -> str:
    """What it prints where it ends with 1."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("verify_billing", *argv, stdout=out, stderr=io.StringIO())
    assert caught.value.returncode == 1
    return out.getvalue()


def test_months_that_are_as_they_were_closed_are_said_to_be(key: Key) -> None:
    key.organization.name = key.name = "Renamed"
    key.organization.save()
    key.save()

    assert verify() == ["2026-05: as closed.", "2026-06: as closed.", "Journals: as closed."]
    assert verify("2026-06")[0] == "2026-06: as closed."


def _lose_a_rollup() -> None:
    Rollup.objects.filter(booked_period=MAY.first_day).delete()


def _count_more() -> None:
    Rollup.objects.filter(booked_period=MAY.first_day).update(quantity=16)


def _move_usage() -> None:
    Rollup.objects.filter(booked_period=MAY.first_day).update(resource="x")
    Price.objects.create(version_id=Price.objects.get().version_id, meter="requests", resource="x")


def _change_a_price() -> None:
    Price.objects.update(unit_price="0.02")


def _change_a_subscription() -> None:
    Subscription.objects.update(start=MAY.start + dt.timedelta(days=1))


def _change_an_amount() -> None:
    StatementLine.objects.filter(closed=MAY.first_day, kind="usage").update(amount="0.06")


def _change_a_name() -> None:
    StatementLine.objects.filter(closed=MAY.first_day, kind="usage").update(key_name="Other")


def _lose_a_line() -> None:
    StatementLine.objects.filter(closed=MAY.first_day, kind="fee").delete()


def _forge_the_hash() -> None:
    ClosedPeriod.objects.filter(period=MAY.first_day).update(sha256=hashlib.sha256(b"").hexdigest())


def _cut_the_chain() -> None:
    ClosedPeriod.objects.filter(period=JUNE.first_day).update(previous_sha256="")


def _forge_the_totals() -> None:
    ClosedPeriod.objects.filter(period=MAY.first_day).update(amount_by_currency={"USD": "0.00"})


def _lose_the_event() -> None:
    AuditEvent.objects.filter(act="period.closed", data__period="2026-06").delete()


CHANGES: list[tuple[Callable[[], None], str]] = [
    (
        _lose_a_rollup,
        "2026-05: the roll-ups have a quantity of 0 of requests",
    ),
    (_count_more, "a quantity of 16 of requests (smallest units), its lines 15."),
    (_move_usage, "2026-05: line 2 has resource None, recomputed it is 'x': acme"),
    (_change_a_price, "2026-05: line 2 has unit_price '0.01', recomputed it is '0.02': acme"),
    (_change_a_subscription, "2026-05: line 1 has quantity 2678400, recomputed it is 2592000: acme fee."),
    (_change_an_amount, "2026-05: its lines have 31.06 as amount in USD, it was closed with 31.05."),
    (_change_a_name, "2026-05: its lines have another SHA-256 than when it was closed."),
    (_lose_a_line, "2026-05: it has 1 lines, and was closed with 2."),
    (_forge_the_hash, "2026-05: the audit has another hash or number of lines."),
    (_cut_the_chain, "2026-06: its hash of the month before is not that month's."),
    (_forge_the_totals, "2026-05: its lines have 31.05 as amount in USD, it was closed with 0.00."),
    (_lose_the_event, "2026-06: the audit has no event of its closing."),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_what_was_changed_is_named(key: Key, change: Callable[[], None], said: str) -> None:
    change()
    assert said in differs()
    assert any(said in str(kept) for kept in Verification.objects.all())


def test_a_price_that_changes_only_corrections_is_named_on_their_month(key: Key) -> None:
    StatementLine.objects.filter(closed=JUNE.first_day, kind="correction").update(billable=8)
    assert "2026-06: its lines have another SHA-256" in differs("2026-06")


def test_calls_that_are_in_no_roll_up_are_named(db: None, journal: Journal, clock: Clock) -> None:
    for _ in range(3):
        call(journal)
    drain.drain_once(timezone.now())
    assert list(verifying.of_segments()) == []

    Rollup.objects.update(calls=2)
    assert list(verifying.of_segments()) == ["they have 3 calls of requests, the roll-ups 2."]
    Rollup.objects.update(calls=3)
    Segment.objects.update(sums={"VALID/requests": [2, 2]})
    assert list(verifying.of_segments()) == ["they have 2 calls of requests, the roll-ups 3."]


def test_usage_from_before_the_first_journal_is_no_difference(
    key: Key, journal: Journal, clock: Clock
) -> None:
    call(journal)
    drain.drain_once(timezone.now())
    assert verify()[-1] == "Journals: as closed."


def test_a_month_that_is_not_closed_is_refused(key: Key) -> None:
    with pytest.raises(CommandError, match="2026-07 is not closed") as caught:
        verify("2026-07")
    assert caught.value.returncode == 1


def test_before_any_month_is_closed_nothing_differs(db: None, journal_dir: Path) -> None:
    assert verify() == ["Journals: as closed."]


@pytest.mark.parametrize("text", ["", "2026-13", "9000-01", "x" * 2**20, "2026-05\0", "\ud800"])
def test_what_is_no_month_is_one_sentence(db: None, journal_dir: Path, text: str) -> None:
    with pytest.raises(CommandError) as caught:
        verify(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("argv", [("2026-13",), ("2026-05", "2026-06")])
def test_a_bad_command_line_exits_2_with_one_sentence(argv: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, str(django_settings.BASE_DIR / "manage.py"), "verify_billing", *argv],
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "DATABASE_URL": "sqlite:////nonexistent/x",
        },
    )

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, b"", 1)
