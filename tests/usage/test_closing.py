"""Closing a month: when it may be, what it freezes, and where what comes late is booked."""

import datetime as dt
import io
import json
import os
import subprocess
import sys
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from keys import lifecycle
from keys.lifecycle import Conflict, Forbidden
from keys.models import AuditEvent, Key
from tests import builders
from tests.threads import at_once
from tests.usage.exported import addressed
from tests.usage.journals import Clock, call
from usage import drain, events, watermark
from usage.billing import Period, accounts, closing, periods, statement, subscriptions
from usage.event_format import Reported
from usage.journal import Journal
from usage.models import ClosedPeriod, Rollup, Spool, StatementAccount, StatementLine

APRIL, MAY, JUNE = Period(2026, 4), Period(2026, 5), Period(2026, 6)
NOW = builders.NOW  # in June
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
CENT = {"unit_price": "0.01"}


@pytest.fixture
def key(db: None) -> Key:
    """Of a customer that has subscribed from May on."""
    key = builders.key(builders.organization("acme")).key
    builders.subscription(
        key.organization, builders.version("basic", fee=3100, requests=CENT | {"included": 10}), MAY.start
    )
    return key


def close(period: Period = MAY, now: dt.datetime = NOW) -> ClosedPeriod:
    return closing.close(period, lifecycle.command_actor(), now=now)


def refused(period: Period = MAY, now: dt.datetime = NOW) -> str:
    with pytest.raises(Conflict) as caught:
        close(period, now)
    return caught.value.sentence


def export(tmp_path: Path, *argv: str, name: str = "may.csv") -> tuple[bytes, dict[str, Any]]:
    """The file's bytes, and the manifest."""
    file = tmp_path / name
    call_command("export_billing", "--period", "2026-05", "--output", str(file), *argv, stderr=io.StringIO())
    return file.read_bytes(), json.loads(Path(f"{file}.manifest.json").read_bytes())


def event(key: Key, at: dt.datetime, quantity: int = 1, name: str = "e") -> Reported:
    return Reported("us", name, key.public_id, "requests", Decimal(quantity), at, "", "", False)


# --- what is frozen -------------------------------------------------------------------------------


def test_the_lines_are_frozen_as_they_were(key: Key) -> None:
    builders.used(key, 15, MAY.start)
    before = list(statement.lines_of(MAY))

    found = close()

    assert [line.kind for line in before] == ["fee", "usage"]
    assert list(statement.lines_of(MAY)) == before
    assert list(statement.lines_of(MAY, key.organization)) == before
    assert (found.lines, found.quantity_by_meter, found.amount_by_currency) == (
        2,
        {"requests": 15},
        {"USD": "31.05"},
    )
    assert AuditEvent.objects.get(act="period.closed").data == {
        "period": "2026-05",
        "lines": 2,
        "sha256": found.sha256,
    }


def test_nothing_changes_a_closed_month(key: Key) -> None:
    builders.used(key, 15, MAY.start)
    close()
    before = list(statement.lines_of(MAY))

    builders.used(key, 1, MAY.start + HOUR)
    key.organization.name = "Another"
    key.organization.save()

    assert list(statement.lines_of(MAY)) == before
    assert list(statement.computed(MAY)) != before


def account(key: Key, **fields: str) -> None:
    accounts.edit_account(lifecycle.command_actor(), key.organization, now=NOW, **fields)


def test_a_closed_month_keeps_whom_it_is_billed_to(key: Key, journal_dir: Path, tmp_path: Path) -> None:
    builders.used(key, 15, MAY.start)
    account(key, tax_id="DE1", stripe_customer="cus_1")
    closed = close()
    before = export(tmp_path, "--format", "stripe")
    account(key, name="Other", tax_id="DE2", stripe_customer="cus_2", lago_subscription="sub_2")

    assert export(tmp_path, "--format", "stripe") == before
    kept = accounts.billed_to(key.organization, closed)
    assert kept is not None
    assert (kept.name, kept.tax_id, kept.lago_subscription) == ("Acme", "DE1", "sub_2")
    assert accounts.ids("stripe_customer", closed) == {"acme": "cus_1"}
    assert accounts.ids("stripe_customer") == {"acme": "cus_2"}


def test_an_id_that_a_closed_month_had_none_of_is_filled_in_once(key: Key) -> None:
    builders.used(key, 15, MAY.start)
    account(key, email="bills@example.com")
    closed = close()
    account(key, name="Acme Inc.", stripe_customer="cus_1")
    account(key, stripe_customer="cus_2")

    kept = accounts.billed_to(key.organization, closed)
    assert kept is not None
    assert (kept.name, kept.email, kept.stripe_customer) == ("Acme", "bills@example.com", "cus_1")
    # Given once more, because a month was closed without it: an act, though the account stays as it is.
    StatementAccount.objects.update(stripe_customer="")
    events = AuditEvent.objects.count()
    account(key, stripe_customer="cus_2")
    account(key, stripe_customer="cus_2")
    assert accounts.ids("stripe_customer", closed) == {"acme": "cus_2"}
    assert AuditEvent.objects.count() == events + 1


def test_an_upgrade_freezes_the_accounts_of_months_that_are_closed(key: Key) -> None:
    builders.used(key, 15, MAY.start)
    account(key, tax_id="DE1", openmeter_subject="acme-1")
    close()
    kept = list(StatementAccount.objects.values())
    StatementAccount.objects.all().delete()

    fill = import_module("usage.migrations.0020_fill_statement_accounts").fill
    fill(apps, None)
    assert list(StatementAccount.objects.values()) == kept
    StatementAccount.objects.update(tax_id="DE0")
    fill(apps, None)
    assert StatementAccount.objects.get().tax_id == "DE0"


def test_of_one_organization_only_its_lines_are_read(key: Key) -> None:
    other = builders.key(builders.organization("globex")).key
    builders.used(key, 1, MAY.start)
    builders.used(other, 1, MAY.start)
    close()

    assert {line.organization for line in statement.lines_of(MAY, other.organization)} == {"globex"}


def test_a_month_without_prices_keeps_their_columns_empty(key: Key) -> None:
    builders.used(key, 5, APRIL.start)
    close(APRIL)

    [line] = statement.lines_of(APRIL)
    assert (line.included, line.unit_price, line.amount, line.currency) == (None, None, None, None)


def test_an_empty_month_has_a_statement(db: None) -> None:
    assert close().lines == 0
    assert list(statement.lines_of(MAY)) == []


def test_each_statement_names_the_hash_of_the_one_before(key: Key, settings: Settings) -> None:
    settings.BILLING_GRACE_HOURS = 0
    builders.used(key, 1, MAY.start)
    first, second = close(MAY), close(JUNE, JUNE.end)

    assert first.previous_sha256 == ""
    assert second.previous_sha256 == first.sha256 != second.sha256


# --- when it may be -------------------------------------------------------------------------------


def test_a_month_is_closed_once_its_grace_is_over(key: Key) -> None:
    assert refused(now=MAY.end + 23 * HOUR) == (
        "2026-05 can be closed from 2026-06-02 00:00 UTC on; that is with its grace."
    )
    close(now=MAY.end + DAY)
    assert periods.is_closed(MAY)


def test_a_month_to_come_and_the_one_that_runs_cannot_be_closed(key: Key) -> None:
    close()
    assert "can be closed from 2026-07-02" in refused(JUNE)
    assert not periods.is_closed(JUNE)


def test_months_are_closed_in_their_order_from_the_first_with_anything_in_it(key: Key) -> None:
    builders.used(key, 1, APRIL.start)
    assert refused(MAY) == "2026-04 is open, and months are closed in their order; close it first."
    close(APRIL)
    assert "2026-05 is open" in refused(JUNE, JUNE.end + DAY)
    assert "before the first month" in refused(Period(2026, 3))
    close(MAY)


def test_closing_waits_for_the_host_that_is_furthest_behind(key: Key, journal: Journal, clock: Clock) -> None:
    Spool.objects.create(id="far", host="edge-7", pid=4711, started_at=MAY.start, watermark=MAY.end - HOUR)

    assert refused() == (
        "2026-05 waits for process 4711 of edge-7, whose journal is counted until "
        "2026-05-31 23:00:00 UTC: drain it there, or give it up with retire_spool."
    )
    Spool.objects.update(watermark=MAY.end)
    assert close().complete_through == MAY.end


def test_a_host_that_was_given_up_on_is_named(key: Key) -> None:
    Spool.objects.create(
        id="lost", host="edge-7", pid=1, started_at=MAY.start, watermark=MAY.start + DAY,
        retired_at=NOW, retired_reason="burnt down",
    )  # fmt: skip
    Spool.objects.create(
        id="other", host="edge-8", pid=1, started_at=JUNE.start, retired_at=NOW, retired_reason="sold"
    )

    assert close().retired_hosts == [
        {"host": "edge-7", "since": "2026-05-02T00:00:00+00:00", "reason": "burnt down"}
    ]


def test_only_staff_close_a_month(key: Key) -> None:
    actor = lifecycle.member_actor(alice := builders.user("alice"), builders.member(alice, key.organization))
    with pytest.raises(Forbidden):
        closing.close(MAY, actor, now=NOW)
    assert not ClosedPeriod.objects.exists()


# --- once -----------------------------------------------------------------------------------------


def test_closing_again_changes_nothing(key: Key) -> None:
    builders.used(key, 15, MAY.start)
    first = close()
    builders.used(key, 1, MAY.start + HOUR)
    second = close(now=NOW + HOUR)

    assert (second.sha256, second.closed_at) == (first.sha256, NOW)
    assert AuditEvent.objects.filter(act="period.closed").count() == 1


@pytest.mark.django_db(transaction=True)
def test_closing_twice_at_once_leaves_one_statement() -> None:
    key = builders.key(builders.organization("acme")).key
    for number in range(50):
        builders.used(key, 1, MAY.start, resource=f"/{number}")

    found = at_once([close, close, close])

    assert len({getattr(each, "sha256", each) for each in found}) == 1
    assert StatementLine.objects.count() == 50
    assert AuditEvent.objects.filter(act="period.closed").count() == 1


def test_a_month_that_was_cut_and_not_written_is_finished_and_holds_up_the_next(
    key: Key, settings: Settings
) -> None:
    settings.BILLING_GRACE_HOURS = 0
    builders.used(key, 1, MAY.start)
    ClosedPeriod.objects.create(period=MAY.first_day, cut_at=NOW)

    assert not periods.is_closed(MAY)
    assert "2026-05 is still being closed" in refused(JUNE, JUNE.end)
    assert close().closed_at == NOW


# --- what comes late ------------------------------------------------------------------------------


def test_late_events_are_booked_to_the_earliest_month_that_is_not_cut(key: Key) -> None:
    events.report([event(key, MAY.end - HOUR, 3, "early")], NOW)
    ClosedPeriod.objects.create(period=MAY.first_day, cut_at=NOW)
    events.report([event(key, MAY.end - HOUR, 4, "late"), event(key, NOW, 5, "now")], NOW)

    rows = Rollup.objects.order_by("hour", "booked_period").values_list("hour", "booked_period", "quantity")
    assert list(rows) == [
        (MAY.end - HOUR, MAY.first_day, 3),
        (MAY.end - HOUR, JUNE.first_day, 4),
        (NOW, JUNE.first_day, 5),
    ]


def test_late_calls_are_booked_to_the_earliest_month_that_is_not_cut(
    key: Key, journal: Journal, clock: Clock
) -> None:
    october = Period(2026, 10)
    call(journal, organization=key.organization_id, key=key.pk)
    ClosedPeriod.objects.create(period=october.first_day, cut_at=NOW)
    drain.drain_once(october.end)

    assert Rollup.objects.get().booked_period == october.next.first_day


def test_a_subscription_of_a_month_that_is_cut_cannot_change(key: Key) -> None:
    ClosedPeriod.objects.create(period=MAY.first_day, cut_at=NOW)
    with pytest.raises(Conflict, match="billed and closed"):
        subscriptions.cancel(
            lifecycle.command_actor(), key.organization.subscriptions.get(), at=MAY.start + DAY, now=NOW
        )


# --- the export -----------------------------------------------------------------------------------


def test_a_closed_month_is_exported_without_asking_and_is_the_same_for_ever(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    builders.used(key, 15, MAY.start)
    found = close()
    first = export(tmp_path)
    builders.used(key, 1, MAY.start + HOUR)
    key.organization.name = "Another"
    key.organization.save()

    assert export(tmp_path, "--allow-open", name="again.csv") == first
    assert first[1] == {
        "period": "2026-05",
        "status": "closed",
        "complete_through": None,
        "lines": 2,
        "quantity_by_meter": {"requests": 15},
        "amount_by_currency": {"USD": "31.05"},
        "sha256": found.sha256,
        "previous_sha256": None,
    }


@pytest.mark.parametrize("format_name", ["csv", "stripe"])
def test_a_closed_month_whose_lines_were_changed_is_not_exported(
    key: Key, journal_dir: Path, tmp_path: Path, format_name: str
) -> None:
    addressed(key.organization)
    builders.used(key, 15, MAY.start)
    close()
    argv = ("export_billing", "--period", "2026-05", "--format", format_name, "--output")
    call_command(*argv, str(tmp_path / "as-closed"), stderr=io.StringIO())
    StatementLine.objects.filter(kind="usage").update(amount="0.06")

    for output in (str(tmp_path / "changed"), "-"):
        out = io.StringIO()
        with pytest.raises(CommandError, match="another SHA-256 than when it was closed") as caught:
            call_command(*argv, output, stdout=out, stderr=io.StringIO())
        assert (caught.value.returncode, out.getvalue()) == (1, "")
    assert {path.name for path in tmp_path.glob("*")} >= {"as-closed", "as-closed.manifest.json"}
    assert list(tmp_path.glob("changed*")) == []


def test_a_month_that_is_only_cut_is_still_open(key: Key, journal_dir: Path, tmp_path: Path) -> None:
    ClosedPeriod.objects.create(period=MAY.first_day, cut_at=NOW)
    with pytest.raises(CommandError, match="is open"):
        export(tmp_path)


# --- the command ----------------------------------------------------------------------------------


def run(*argv: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("close_period", *argv, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_command_closes_and_says_what_it_wrote(key: Key, journal_dir: Path) -> None:
    builders.used(key, 15, MAY.start)

    out, err = run("2026-05")

    found = ClosedPeriod.objects.get()
    assert out.splitlines() == ["lines: 2", "requests: 15", "USD: 31.05", f"sha256: {found.sha256}"]
    assert err == "Closed 2026-05.\n"
    again, err = run("2026-05")
    assert again == out
    assert "is closed since" in err


def test_a_dry_run_shows_the_same_and_writes_nothing(key: Key, journal_dir: Path) -> None:
    builders.used(key, 15, MAY.start)

    out, _ = run("2026-05", "--dry-run")

    assert not ClosedPeriod.objects.exists()
    assert run("2026-05")[0] == out


def test_a_dry_run_says_which_late_usage_is_in_it_and_which_is_outside(key: Key, journal_dir: Path) -> None:
    builders.used(key, 15, MAY.start)
    close()
    builders.used(key, 3, MAY.start, booked=JUNE.first_day)

    assert "requests outside, in 2026-06: 3" in run("2026-05", "--dry-run")[1].splitlines()
    assert "requests in it, late of 2026-05: 3" in run("2026-06", "--dry-run")[1].splitlines()


JUNK = [
    "",
    "2026",
    "2026-13",
    "05-2026",
    "-2026-05",
    "9000-01",
    "x" * 2**20,
    "2026-05\0",
    "\ud800",
    "２０２６-05",
]


@pytest.mark.parametrize("text", JUNK)
def test_what_is_no_month_or_to_come_is_one_sentence(db: None, journal_dir: Path, text: str) -> None:
    with pytest.raises(CommandError) as caught:
        run(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_month_that_runs_is_refused_for_its_state(db: None, journal_dir: Path) -> None:
    with pytest.raises(CommandError, match="can be closed from") as caught:
        run(f"{timezone.now():%Y-%m}")
    assert caught.value.returncode == 1
    assert not ClosedPeriod.objects.exists()


@pytest.mark.parametrize("argv", [("2026-13",), (), ("2026-05", "2026-06")])
def test_a_bad_command_line_exits_2_with_one_sentence(argv: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, str(django_settings.BASE_DIR / "manage.py"), "close_period", *argv],
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "DATABASE_URL": "sqlite:////nonexistent/x",
        },
    )

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, b"", 1)


def test_the_command_says_whom_it_waits_for(key: Key, journal_dir: Path) -> None:
    Spool.objects.create(id="far", host="edge-7", pid=4711, started_at=MAY.start)
    with pytest.raises(CommandError, match=r"waits for process 4711 of edge-7") as caught:
        run("2026-05")
    assert caught.value.returncode == 1
    assert watermark.complete_through() == MAY.start
