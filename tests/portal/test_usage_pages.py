"""The usage explorer: what each choice shows, that page and file agree, and what junk does to it."""

import csv
import datetime as dt
import io
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from django.utils import timezone

from keys import lifecycle
from keys.models import Environment, Organization
from keys.verdicts import Code
from portal import usage_pages
from tests import builders
from tests.builders import queries
from tests.portal.test_pages import DAY, calls, url
from usage import definitions
from usage.models import ResourceBound, Spool

pytestmark = pytest.mark.django_db

HOUR = dt.timedelta(hours=1)
NOW = dt.datetime(2026, 11, 29, 4, 20, tzinfo=dt.UTC)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def explored(acme: Organization, query: str, now: dt.datetime = NOW) -> usage_pages.Explorer:
    return usage_pages.explore(acme, QueryDict(query), now)


def shown(alice: Client, **query: str) -> usage_pages.Explorer:
    found: usage_pages.Explorer = alice.get(url("usage"), query).context["usage"]
    return found


def file(alice: Client, **query: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(alice.get(url("usage_csv"), query).text)))


def counted(acme: Organization, at: dt.datetime, number: int, outcome: str = "VALID") -> None:
    builders.rollup(
        organization=acme,
        hour=at,
        key_id=1,
        meter="requests",
        outcome=outcome,
        booked_period=at.date().replace(day=1),
        calls=number,
        quantity=number,
    )


# --- the range ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "start", "end", "bucket"),
    [
        ("range=24h", "2026-11-28T05", "2026-11-29T05", "hour"),
        ("range=7d", "2026-11-23T00", "2026-11-30T00", "day"),
        ("range=7d&bucket=hour", "2026-11-23T00", "2026-11-30T00", "hour"),
        ("", "2026-10-31T00", "2026-11-30T00", "day"),
        ("range=month", "2026-11-01T00", "2026-11-30T00", "day"),
        ("range=last-month", "2026-10-01T00", "2026-11-01T00", "day"),
        ("range=last-month&bucket=month", "2026-10-01T00", "2026-11-01T00", "month"),
        ("range=custom&start=2026-02-27&end=2026-03-01", "2026-02-27T00", "2026-03-02T00", "day"),
        ("range=custom&start=2026-03-01&end=2026-03-01", "2026-03-01T00", "2026-03-02T00", "hour"),
        ("range=custom&start=2025-12-01&end=2026-12-01", "2025-12-01T00", "2026-12-02T00", "month"),
    ],
)
def test_a_range_is_whole_days_or_hours_in_utc(
    acme: Organization, query: str, start: str, end: str, bucket: str
) -> None:
    found = explored(acme, query)
    assert (f"{found.start:%Y-%m-%dT%H}", f"{found.end:%Y-%m-%dT%H}", found.bucket) == (start, end, bucket)
    assert not found.notes


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ("range=custom", "Choose a first and a last day"),
        ("range=custom&start=2026-03-02&end=2026-03-01", "before the first"),
        ("range=custom&start=2025-01-01&end=2026-03-01", "at most 366 days"),
        ("range=custom&start=0001-01-01&end=9999-12-31", "no sense"),
        ("range=custom&start=2026-03-01&end=9999-12-31", "no sense"),
        ("range=custom&start=x&end=2026-03-01", "Choose a first"),
        ("range=30d&bucket=hour", "Hours are shown for ranges of up to 7 days"),
        ("key=key_0000000000000000", "no such key"),
    ],
)
def test_what_cannot_be_shown_is_said_and_the_default_shown(
    acme: Organization, query: str, note: str
) -> None:
    found = explored(acme, query)
    assert note in found.notes[0]
    assert (found.end - found.start, found.bucket) == (30 * DAY, "day")


def test_dates_that_are_wrong_are_there_to_be_mended(acme: Organization) -> None:
    form = explored(acme, "range=custom&start=2026-03-02&end=2026-03-01").form
    assert [form[name].value() for name in ("range", "start", "end")] == [
        "custom",
        "2026-03-02",
        "2026-03-01",
    ]
    half = explored(acme, "range=custom&start=2026-03-02").form
    assert (half["start"].value(), half["range"].value()) == ("2026-03-02", "custom")
    assert half["end"].value()


def test_what_was_chosen_stands_in_the_form_and_in_the_address_of_the_file(
    alice: Client, acme: Organization
) -> None:
    calls(builders.key(acme).key, 1)
    page = alice.get(url("usage"), {"range": "7d", "by": "key", "compare": "on"})
    form = page.context["usage"].form
    assert [form[name].value() for name in ("range", "by", "compare")] == ["7d", "key", True]
    assert f'href="{url("usage_csv")}?range=7d&amp;by=key&amp;compare=on"' in page.text
    assert form["start"].value() == (timezone.now() - 6 * DAY).date().isoformat()


@pytest.mark.parametrize("junk", ["\x00", "\ufffd", "%", "x" * 5000, "-1", "9" * 40, "🔑", "' OR 1=1"])
def test_junk_is_as_if_it_were_not_there(alice: Client, acme: Organization, junk: str) -> None:
    calls(builders.key(acme).key, 10)
    names = ("range", "start", "end", "bucket", "by", "meter", "environment", "show", "key", "table", "page")
    for name in ("usage", "usage_csv"):
        assert alice.get(url(name), dict.fromkeys(names, junk)).status_code == 200
    found = shown(alice, **dict.fromkeys(names, junk))
    assert (found.all_calls, found.by, found.table) == (10, "outcome", "groups")


# --- sums -----------------------------------------------------------------------------------------


def test_calls_add_up_to_the_same_by_whatever_they_are_stacked(alice: Client, acme: Organization) -> None:
    first = builders.key(acme, name="First").key
    second = builders.key(acme, name="Second", environment=Environment.TEST).key
    calls(first, 10, resource="orders")
    calls(first, 3, Code.RATE_LIMITED, ago=2 * DAY)
    calls(second, 20, ago=6 * DAY)
    for by in usage_pages.BY:
        found = shown(alice, range="7d", by=by)
        assert sum(row.calls for row in found.groups) == found.all_calls == 33
        assert sum(row.accepted for row in found.groups) == found.calls.accepted == 30
        assert sum(sum(layer.values) for layer in found.layers) == 33
        assert len(found.times) == 7
    names = {by: [row.name for row in shown(alice, range="7d", by=by).groups] for by in usage_pages.BY}
    assert names == {
        "outcome": ["Accepted", "Rate limited"],
        "key": ["Second", "First"],
        "resource": ["None named", "orders"],
        "meter": ["Requests"],
        "environment": ["Test", "Live"],
    }


def test_the_largest_have_parts_of_their_own_and_the_others_one(alice: Client, acme: Organization) -> None:
    for number in range(9):
        calls(builders.key(acme, name=f"Key {number}").key, 10 + number)
    found = shown(alice, by="key")
    names = [layer.name for layer in found.layers]
    assert names == ["Key 8", "Key 7", "Key 6", "Key 5", "Key 4", "Key 3", "Other"]
    assert [sum(layer.values) for layer in found.layers] == [18, 17, 16, 15, 14, 13, 12 + 11 + 10]
    assert len(found.groups) == 9


def test_usage_is_filtered_by_key_and_environment(alice: Client, acme: Organization) -> None:
    live = builders.key(acme).key
    test = builders.key(acme, environment=Environment.TEST).key
    calls(live, 10)
    calls(test, 5)
    assert shown(alice, environment="test").all_calls == 5
    assert shown(alice, key=live.public_id).all_calls == 10
    assert shown(alice, key=live.public_id, environment="test").all_calls == 0
    assert "All keys" in alice.get(url("usage"), {"key": live.public_id}).text


def test_another_organizations_key_is_no_key(alice: Client, acme: Organization) -> None:
    other = builders.key(builders.organization("globex"), name="Secret project").key
    calls(other, 5)
    page = alice.get(url("usage"), {"key": other.public_id, "by": "key"})
    assert page.context["usage"].all_calls == 0
    assert "Secret project" not in page.text


def test_nothing_to_show_says_what_to_do(alice: Client, acme: Organization) -> None:
    page = alice.get(url("usage"))
    assert "No calls in this range" in page.text
    assert "chart-plot" not in page.text


def test_calls_of_a_key_that_is_lost_are_still_counted(alice: Client, acme: Organization) -> None:
    counted(acme, timezone.now().replace(minute=0, second=0, microsecond=0), 4)
    assert [row.name for row in shown(alice, by="key").groups] == ["Unknown key 1"]
    assert [row.name for row in shown(alice, by="environment").groups] == ["Unknown"]


# --- meters ---------------------------------------------------------------------------------------


def test_several_meters_show_calls_and_one_its_quantities(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    builders.meter("hours", title="GPU hours", decimals=3)
    calls(key, 10)
    calls(key, 4, meter="hours", resource="train", quantity=1_234_500)
    calls(key, 2, Code.RATE_LIMITED, meter="hours", resource="train")
    calls(key, 1, meter="hours", resource="infer", quantity=7)
    both = shown(alice, show="quantity")
    assert (both.all_calls, both.quantity, both.unit) == (17, "", "Calls")
    assert "do not add up" in both.notes[0]
    assert [(row.name, row.quantity) for row in shown(alice, by="meter").groups] == [
        ("Requests", "10"),
        ("GPU hours", "1,234.507"),
    ]
    page = alice.get(url("usage"), {"meter": "hours", "by": "resource", "show": "quantity"})
    hours = page.context["usage"]
    assert (hours.unit, hours.quantity, hours.total) == ("GPU hours", "1,234.507", "1,234.507")
    assert [(row.name, row.calls, row.quantity, row.share) for row in hours.groups] == [
        ("train", 6, "1,234.500", "100%"),
        ("infer", 1, "0.007", "<0.01%"),
    ]
    assert "1,234.500 train" in page.text


def test_usage_of_an_archived_meter_is_still_shown(alice: Client, acme: Organization) -> None:
    hours = builders.meter("hours", decimals=3)
    calls(builders.key(acme).key, 5, meter="hours", quantity=1500)
    definitions.archive_meter(lifecycle.command_actor(), hours, now=timezone.now())
    assert shown(alice, meter="hours").quantity == "1.500"


def test_another_organizations_meters_and_resources_are_not_shown(alice: Client, acme: Organization) -> None:
    builders.meter("hours")
    calls(builders.key(builders.organization("globex")).key, 5, meter="hours", resource="secret-model")
    page = alice.get(url("usage"), {"meter": "hours", "by": "resource"})
    assert page.context["usage"].all_calls == 0
    assert "secret-model" not in page.text


@pytest.mark.parametrize("reached", [True, False])
def test_other_is_explained_where_it_is_not_just_a_name(
    alice: Client, acme: Organization, reached: bool
) -> None:
    key = builders.key(acme).key
    for name in ("a", "b", "other"):
        calls(key, 1, resource=name)
    if reached:
        ResourceBound.objects.create(organization=acme, meter="requests", kept=2, reached_at=timezone.now())
    page = alice.get(url("usage"), {"by": "resource"}).text
    assert ("all but the first 2" in page) is reached
    assert ("none is lost" in page) is reached


# --- the period before ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "before"),
    [
        # What has not passed yet of this period is left out of the one before, too.
        ("range=7d", "16 Nov 2026, 00:00 – 22 Nov 2026, 05:00"),
        ("range=24h", "27 Nov 2026, 05:00 – 28 Nov 2026, 05:00"),
        ("range=month", "1 Oct 2026, 00:00 – 29 Oct 2026, 05:00"),
        ("range=last-month", "1 Sep 2026 – 30 Sep 2026"),
        ("range=custom&start=2026-11-10&end=2026-11-12", "7 Nov 2026 – 9 Nov 2026"),
    ],
)
def test_a_period_is_compared_with_as_much_of_the_one_before(
    acme: Organization, query: str, before: str
) -> None:
    compared = explored(acme, f"{query}&compare=on").before
    assert compared is not None
    assert compared.title == before


def test_the_period_before_is_summed_bucket_by_bucket(acme: Organization) -> None:
    midnight = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    for days, number in ((0, 30), (1, 60), (-7, 10), (-6, 20)):
        counted(acme, midnight + days * DAY, number)
    counted(acme, midnight - DAY + 6 * HOUR, 1000)  # later in the day than it is now
    counted(acme, midnight - 5 * DAY, 10, "EXPIRED")
    found = explored(acme, "range=7d&compare=on")
    assert found.before is not None
    assert (found.all_calls, found.before.calls) == (90, 40)
    assert found.before.calls_change == "+125%"
    assert [row.before for row in found.times] == ["10", "20", "10", "0", "0", "0", "0"]
    assert [(row.name, row.before, row.change) for row in found.groups] == [("Accepted", "30", "+200%")]
    assert found.chart.line
    assert not explored(acme, "range=7d").chart.line


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [(0, 0, "—"), (5, 0, "new"), (0, 5, "−100%"), (5, 5, "0%"), (15, 10, "+50%"), (171, 10, "×17")],
)
def test_a_change_is_said_shortly(now: int, before: int, text: str) -> None:
    assert usage_pages.change(now, before) == text


# --- the file -------------------------------------------------------------------------------------


def test_the_file_is_the_table_of_the_page(alice: Client, acme: Organization) -> None:
    key = builders.key(acme, name="=HYPERLINK(1)").key
    calls(key, 1234)
    calls(key, 6, Code.RATE_LIMITED)
    assert file(alice, by="key", compare="on") == [
        {
            "key": key.public_id,
            "key_name": "'=HYPERLINK(1)",
            "environment": "live",
            "calls": "1240",
            "accepted": "1234",
            "refused": "6",
            "share": "100%",
            "meter": "requests",
            "quantity": "1234",
            "unit": "request",
            "before": "0",
        }
    ]
    over_time = file(alice, range="7d", table="time")
    assert len(over_time) == 7
    assert over_time[-1] == {
        "start": f"{timezone.now():%Y-%m-%d}T00:00:00Z",
        "end": f"{timezone.now() + DAY:%Y-%m-%d}T00:00:00Z",
        "Accepted": "1234",
        "Rate limited": "6",
        "total": "1240",
    }


def test_the_file_has_all_pages(alice: Client, acme: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.usage_pages.page.PAGE", 2)
    for number in range(5):
        calls(builders.key(acme, name=f"Key {number}").key, 10 + number)
    assert [row.name for row in shown(alice, by="key", page="2").groups] == ["Key 2", "Key 1"]
    assert [row["key_name"] for row in file(alice, by="key", page="2")] == [
        f"Key {n}" for n in (4, 3, 2, 1, 0)
    ]


def test_the_file_follows_the_meter(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    builders.meter("hours", unit="+hour", decimals=3)
    calls(key, 10)
    calls(key, 4, meter="hours", resource="=cmd", quantity=1500)
    (row,) = file(alice, by="resource", meter="hours")
    assert (row["resource"], row["quantity"], row["unit"]) == ("'=cmd", "1.500", "'+hour")
    assert {row["quantity"] for row in file(alice, by="resource")} == {""}


def test_the_files_name_says_what_it_holds_and_until_when(alice: Client, acme: Organization) -> None:
    builders.meter("hours")
    query = {"range": "custom", "start": "2026-03-01", "end": "2026-03-31", "meter": "hours", "by": "key"}
    response = alice.get(url("usage_csv"), query)
    assert response.headers["Content-Disposition"] == (
        'attachment; filename="usage-acme-hours-2026-03-01-to-2026-03-31-by-key.csv"'
    )
    assert "X-Complete-Through" not in response.headers
    at = dt.datetime(2026, 6, 15, 12, 34, 56, 789, tzinfo=dt.UTC)
    Spool.objects.create(id="aaaaaaaaaaa", host="east", pid=7, started_at=at, watermark=at)
    response = alice.get(url("usage_csv"), query | {"table": "time"})
    assert response.headers["X-Complete-Through"] == "2026-06-15T12:34:56Z"
    assert response.headers["Content-Disposition"] == (
        'attachment; filename="usage-acme-hours-2026-03-01-to-2026-03-31-by-key-per-day'
        '-until-2026-06-15T12-34-56Z.csv"'
    )


# --- cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", usage_pages.BY)
def test_the_page_takes_the_same_few_queries_however_much_was_used(
    alice: Client, acme: Organization, by: str
) -> None:
    key = builders.key(acme).key
    calls(key, 1)
    path = f"{url('usage')}?by={by}&compare=on"
    before = queries(alice, path)
    for n in range(12):
        calls(builders.key(acme).key, 3, resource=f"r{n}", ago=(30 + n) * DAY)
        calls(builders.key(acme).key, 3, meter="hours", resource=f"r{n}", ago=n * DAY)
        calls(key, 3, resource=f"r{n}", ago=n * DAY)
    assert queries(alice, path) == before
    assert before <= 12
    assert queries(alice, f"{path}&key={key.public_id}") <= 12
