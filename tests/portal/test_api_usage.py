"""`POST /v1/usage/events` and `GET /v1/usage`: what they answer, whom they refuse, and junk of every kind."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from keys import lifecycle
from keys.directory import Directory
from keys.models import Organization
from portal import reference
from tests import builders
from tests.portal.api import Portal, make_portal, problem, verify
from usage import definitions, metering, reports, series
from usage.drain import drain_once
from usage.models import Event, ResourceBound, Rollup

pytestmark = pytest.mark.django_db

BATCH, SINGLE = "application/cloudevents-batch+json", "application/cloudevents+json"
START = dt.datetime(2026, 6, 15, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.fixture
def portal(journal_dir: Path) -> Iterator[Portal]:
    yield make_portal(Directory(process_id="test", lock_dir=journal_dir))
    metering.stop()


@pytest.fixture
def reporter(portal: Portal) -> lifecycle.Issued:
    return portal.key("worker", name="Worker", scopes=("portal:report",))


@pytest.fixture
def reader(portal: Portal) -> lifecycle.Issued:
    return portal.key("globex", name="Reader", scopes=("portal:usage",))


def post(issued: lifecycle.Issued, body: object, kind: str = "application/json", **headers: str) -> Any:
    """One `POST /v1/usage/events`: bytes and text as they are, anything else as JSON."""
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    return Client(enforce_csrf_checks=True).post(
        "/v1/usage/events",
        body,
        content_type=kind,
        headers={"Authorization": f"Bearer {issued.plaintext}"} | headers,
    )


def event(portal: Portal, event_id: str = "1", **fields: object) -> dict[str, object]:
    return {"id": event_id, "key": portal.asked.key.public_id, "meter": "requests", "value": 1} | fields


def counted(**filters: object) -> int:
    """The quantity of everything that is accepted."""
    return sum(Rollup.objects.filter(outcome="VALID", **filters).values_list("quantity", flat=True))


# --- POST /v1/usage/events -------------------------------------------------------------------------


def test_a_batch_is_answered_event_by_event(portal: Portal, reporter: lifecycle.Issued) -> None:
    batch = [event(portal), event(portal), event(portal, value=2), event(portal, "2", value="3")]
    response = post(reporter, {"events": batch})
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Portal-Request"]
    answer = response.json()
    (rejected,) = answer.pop("rejected")
    assert answer == {"accepted": 2, "duplicates": 1}
    assert (rejected["index"], rejected["code"]) == (2, "CONFLICT")
    assert counted() == 4


def test_an_empty_batch_is_one(reporter: lifecycle.Issued) -> None:
    assert post(reporter, {"events": []}).json() == {"accepted": 0, "duplicates": 0, "rejected": []}


def test_numbers_are_read_exactly(portal: Portal, reporter: lifecycle.Issued) -> None:
    builders.meter("tokens", decimals=3)
    key = portal.asked.key.public_id
    item = '{"id": "%s", "key": "' + key + '", "meter": "tokens", "value": %s}'
    values = ["0.1", "9007199254740.993", "1e400", "1" * 5000, "1e999999999999999999999"]
    body = '{"events": [' + ", ".join(item % pair for pair in enumerate(values)) + "]}"
    answer = post(reporter, body).json()
    assert answer["accepted"] == 1 + 0
    assert [each["code"] for each in answer["rejected"]] == ["INVALID_VALUE"] * 4
    assert counted() == 100
    assert post(reporter, body.replace("9007199254740.993", "9007199254740.991")).json()["accepted"] == 1
    assert counted() == 100 + 9007199254740991


def test_a_replaced_key_of_the_reporter_goes_on_with_its_ids(
    portal: Portal, reporter: lifecycle.Issued
) -> None:
    post(reporter, {"events": [event(portal)]})
    other = builders.key(reporter.key.organization, name="Next", scopes=("portal:report",))
    portal.directory.refresh()
    assert post(other, {"events": [event(portal)]}).json()["duplicates"] == 1
    assert post(other, {"events": [event(portal)], "source": "elsewhere"}).json()["accepted"] == 1
    assert set(Event.objects.values_list("source", flat=True)) == {"worker", "elsewhere"}


def test_cloudevents_come_alone_and_in_batches(portal: Portal, reporter: lifecycle.Issued) -> None:
    sent = {
        "specversion": "1.0",
        "id": "1",
        "source": "/worker",
        "type": "requests",
        "subject": portal.asked.key.public_id,
        "data": {"value": 2},
    }
    assert post(reporter, sent, SINGLE).json()["accepted"] == 1
    assert post(reporter, [sent, sent | {"id": "2"}], f"{BATCH}; charset=utf-8").json() == {
        "accepted": 1,
        "duplicates": 1,
        "rejected": [],
    }
    assert counted() == 4


def test_a_call_is_held_and_settled_over_http(portal: Portal, reporter: lifecycle.Issued) -> None:
    held = verify(portal, hold=True, cost=100).json()["request"]
    usual = verify(portal, hold=False).json()["request"]
    drain_once(timezone.now())
    of_key = {"key_id": portal.asked.key.pk}
    assert counted(**of_key) == 101
    batch = [{"id": "1", "settles": held, "value": 37}, {"id": "2", "settles": usual, "value": 1}]
    answer = post(reporter, {"events": batch}).json()
    assert (answer["accepted"], answer["rejected"][0]["code"]) == (1, "NOT_HELD")
    assert counted(**of_key) == 38


def test_reports_cost_the_reporter_nothing(portal: Portal, reporter: lifecycle.Issued) -> None:
    post(reporter, {"events": [event(portal)]})
    drain_once(timezone.now())
    row = Rollup.objects.get(key=reporter.key)
    assert (row.resource, row.calls, row.quantity) == ("/v1/usage/events", 1, 0)


def test_only_staffs_scope_lets_one_report(portal: Portal, reader: lifecycle.Issued) -> None:
    for issued in (portal.asked, portal.verifier, reader):
        problem(post(issued, {"events": [event(portal)]}), 403, "INSUFFICIENT_SCOPE")
    response = Client().post("/v1/usage/events", "{}", content_type="application/json")
    problem(response, 401, "MISSING_CREDENTIAL")
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (" ", "application/json", 400, "BAD_REQUEST"),
        ("{", "application/json", 400, "BAD_REQUEST"),
        (b"\xff", "application/json", 400, "BAD_REQUEST"),
        ('{"events": [{"value": NaN}]}', "application/json", 400, "BAD_REQUEST"),
        ('{"events": [], "events": []}', "application/json", 400, "BAD_REQUEST"),
        ("[" * 100_000, "application/json", 400, "BAD_REQUEST"),
        ("[]", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("[]", "application/json", 422, "INVALID"),
        ("{}", "application/json", 422, "INVALID"),
        ('{"events": {}}', "application/json", 422, "INVALID"),
        ('{"events": [], "more": 1}', "application/json", 422, "INVALID"),
        ('{"events": [], "source": ""}', "application/json", 422, "INVALID"),
        ('{"events": [], "source": null}', "application/json", 422, "INVALID"),
        ('{"events": [], "source": "a\\u0000"}', "application/json", 422, "INVALID"),
        ('{"events": [' + "1," * 1000 + "1]}", "application/json", 422, "INVALID"),
        ("{}", BATCH, 422, "INVALID"),
        ("[" + "1," * 1000 + "1]", BATCH, 422, "INVALID"),
        ("[]", SINGLE, 422, "INVALID"),
        ("x" * 2**21, "application/json", 413, "TOO_LARGE"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole(
    reporter: lifecycle.Issued, body: str | bytes, kind: str, status: int, code: str
) -> None:
    response = post(reporter, body, kind)
    problem(response, status, code)
    if status == 415:
        assert response.headers["Accept"] == f"application/json, {BATCH}, {SINGLE}"


def test_nothing_that_was_sent_comes_back(portal: Portal, reporter: lifecycle.Issued) -> None:
    secret = portal.asked.plaintext
    fields = ("id", "key", "meter", "value", "at", "resource", "settles", secret)
    bodies = [{"events": [event(portal) | {name: secret} for name in fields]}, {"events": [], secret: 1}]
    for body in bodies:
        assert secret not in post(reporter, body).content.decode()
    assert not Event.objects.exists()


def test_a_thousand_strange_items_are_each_rejected(reporter: lifecycle.Issued) -> None:
    strange: list[object] = [
        None,
        True,
        1,
        "x",
        [],
        {},
        {"id": 1},
        {"id": "\ud800"},
        {"id": "a", "key": "\0", "meter": "x"},
    ]
    body = json.dumps({"events": (strange * 112)[:1000]})
    answer = post(reporter, body).json()
    assert (answer["accepted"], len(answer["rejected"])) == (0, 1000)


def test_the_lines_of_the_docs_work(portal: Portal, reporter: lifecycle.Issued) -> None:
    """What curl would send, but for the ids that are placeholders."""
    held = [verify(portal, hold=True, cost=100).json()["request"] for _ in range(2)]
    drain_once(timezone.now())
    known = {"key_4kDfZ0aQ9sLmX2cV": portal.asked.key.public_id}
    for name, request, quantity in (
        ("report", "", 205),
        ("cloudevents", "", 208),
        ("settle", held[0], 145),
        ("void", held[1], 45),
    ):
        line = reference.usage_lines()[name]
        kind = line.partition("Content-Type: ")[2].partition('"')[0]
        body = line.partition("-d '")[2].removesuffix("'")
        for placeholder, value in (known | {"'\"$REQUEST\"'": request, "chat-9": name}).items():
            body = body.replace(placeholder, value)
        assert post(reporter, body, kind).json()["rejected"] == []
        assert counted(key_id=portal.asked.key.pk) == quantity


# --- GET /v1/usage ---------------------------------------------------------------------------------


def get(issued: lifecycle.Issued, query: str) -> Any:
    return Client().get(f"/v1/usage?{query}", headers={"Authorization": f"Bearer {issued.plaintext}"})


def used(
    of: Organization,
    key: int,
    hour: dt.datetime,
    calls: int = 1,
    *,
    outcome: str = "VALID",
    meter: str = "requests",
    resource: str = "",
    quantity: int | None = None,
) -> None:
    builders.rollup(
        organization=of,
        hour=hour,
        key_id=key,
        meter=meter,
        resource=resource,
        outcome=outcome,
        booked_period=hour.date().replace(day=1),
        calls=calls,
        quantity=calls if quantity is None else quantity,
    )


def test_usage_is_summed_by_day_and_group(portal: Portal, reader: lifecycle.Issued) -> None:
    globex, pk = reader.key.organization, reader.key.pk
    used(globex, pk, START, 3)
    used(globex, pk, START + 23 * HOUR, 4)
    used(globex, pk, START + DAY, 5, outcome="REVOKED", quantity=0)
    used(portal.asked.key.organization, portal.asked.key.pk, START, 99)
    answer = get(reader, "from=2026-06-01&to=2026-07-01&group_by=outcome,meter,key").json()
    complete = reports.complete_through()
    assert answer == {
        "complete_through": complete and f"{complete:%Y-%m-%dT%H:%M:%S}.{complete.microsecond // 1000:03}Z",
        "from": "2026-06-01T00:00:00Z",
        "to": "2026-07-01T00:00:00Z",
        "bucket": "day",
        "data": [
            {
                "start": "2026-06-15T00:00:00Z",
                "end": "2026-06-16T00:00:00Z",
                "key": reader.key.public_id,
                "meter": "requests",
                "outcome": "VALID",
                "calls": 7,
                "quantity": "7",
            },
            {
                "start": "2026-06-16T00:00:00Z",
                "end": "2026-06-17T00:00:00Z",
                "key": reader.key.public_id,
                "meter": "requests",
                "outcome": "REVOKED",
                "calls": 5,
                "quantity": "0",
            },
        ],
    }


def test_buckets_are_cut_to_what_was_asked(reader: lifecycle.Issued) -> None:
    for hour in (START - HOUR, START, START + 5 * HOUR):
        used(reader.key.organization, reader.key.pk, hour)
    answer = get(reader, "from=2026-06-15T00:00&to=2026-06-15T07:00:00%2B02:00&bucket=month").json()
    assert answer["data"] == [{"start": "2026-06-15T00:00:00Z", "end": "2026-06-15T05:00:00Z", "calls": 1}]


@pytest.mark.parametrize("bucket", ["hour", "day", "month"])
def test_each_bucket_adds_up_to_the_same(reader: lifecycle.Issued, bucket: str) -> None:
    for number in range(30):
        used(reader.key.organization, reader.key.pk, START + number * 14 * HOUR, number)
    answer = get(reader, f"from=2026-06-15&to=2026-07-15&bucket={bucket}").json()
    assert sum(row["calls"] for row in answer["data"]) == sum(range(30))
    assert len(answer["data"]) == {"hour": 30, "day": 17, "month": 2}[bucket]
    starts = [row["start"] for row in answer["data"]]
    assert starts == sorted(set(starts))


def test_quantities_are_in_the_meters_unit_and_only_by_meter(reader: lifecycle.Issued) -> None:
    builders.meter("tokens", decimals=3)
    used(reader.key.organization, reader.key.pk, START, 1, meter="tokens", quantity=1500)
    used(reader.key.organization, reader.key.pk, START, 1, meter="formerly", quantity=7)
    rows = get(reader, "from=2026-06-15&to=2026-06-16&group_by=meter").json()["data"]
    assert [(row["meter"], row["quantity"]) for row in rows] == [("formerly", "7"), ("tokens", "1.500")]
    (row,) = get(reader, "from=2026-06-15&to=2026-06-16&group_by=resource").json()["data"]
    assert (row["resource"], row["calls"], "quantity" in row) == ("", 2, False)


def test_environments_are_told_apart_and_a_lost_key_keeps_its_usage(reader: lifecycle.Issued) -> None:
    globex = reader.key.organization
    test = builders.key(globex, name="Test", environment="test").key
    for key in (reader.key.pk, test.pk, 999_999_999):
        used(globex, key, START)
    rows = get(reader, "from=2026-06-15&to=2026-06-16&group_by=environment,key").json()["data"]
    assert {(row["key"], row["environment"]) for row in rows} == {
        (reader.key.public_id, "live"),
        (test.public_id, "test"),
        ("unknown-999999999", ""),
    }
    rows = get(reader, "from=2026-06-15&to=2026-06-16&group_by=environment").json()["data"]
    assert [row["environment"] for row in rows] == ["", "live", "test"]


@pytest.mark.parametrize("bucket", ["hour", "day", "month"])
@pytest.mark.parametrize("groups", ["", "key,resource", "resource,environment,outcome,meter"])
def test_pages_are_the_whole_in_pieces(
    reader: lifecycle.Issued, monkeypatch: pytest.MonkeyPatch, bucket: str, groups: str
) -> None:
    for number in range(60):
        used(
            reader.key.organization,
            reader.key.pk + number % 3,
            START + number % 7 * 11 * HOUR,
            resource=f"r{number % 4}",
            outcome=["VALID", "REVOKED"][number % 2],
            meter=f"m{number}",
        )
    query = f"from=2026-06-15&to=2026-06-30&bucket={bucket}&group_by={groups}"
    whole = get(reader, query).json()["data"]
    monkeypatch.setattr(series.page, "__kwdefaults__", {"size": 3})
    rows, cursor = [], ""
    for _ in range(100):
        answer = get(reader, query + cursor).json()
        assert len(answer["data"]) <= 3
        rows += answer["data"]
        if "next" not in answer:
            break
        cursor = f"&cursor={answer['next']}"
    assert rows == whole
    assert sum(row["calls"] for row in rows) == 60


def test_a_cursor_is_good_for_its_own_query_alone(
    portal: Portal, reader: lifecycle.Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = portal.key("initech", name="Other", scopes=("portal:usage",))
    for number in range(3):
        used(reader.key.organization, reader.key.pk, START + number * HOUR)
    monkeypatch.setattr(series.page, "__kwdefaults__", {"size": 1})
    query = "from=2026-06-15&to=2026-06-16&bucket=hour"
    cursor = get(reader, query).json()["next"]
    assert get(reader, f"{query}&cursor={cursor}").status_code == 200
    problem(get(other, f"{query}&cursor={cursor}"), 422, "INVALID")
    problem(get(reader, f"{query}&group_by=key&cursor={cursor}"), 422, "INVALID")
    for junk in ("", "x", cursor + "x", cursor[1:], "%00", "%ff", "a:b:c", "x" * 3000):
        parsed = problem(get(reader, f"{query}&cursor={junk}"), 422, "INVALID")
        assert parsed["errors"][0]["location"] == "query/cursor"


def test_usage_costs_a_fixed_number_of_queries(
    reader: lifecycle.Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    query = "from=2026-06-15&to=2026-06-16&group_by=key,meter,resource,outcome,environment"
    for count in (1, 40):
        for number in range(count):
            used(reader.key.organization, 1000 * count + number, START, resource=f"r{number}")
        # How far it is complete, a page, its keys' names, meters, and where there is an `other`.
        with django_assert_num_queries(5):
            get(reader, query)


def test_usage_of_an_archived_meter_keeps_its_unit(reader: lifecycle.Issued) -> None:
    tokens = builders.meter("tokens", decimals=3)
    used(reader.key.organization, reader.key.pk, START, 1, meter="tokens", quantity=1500)
    definitions.archive_meter(lifecycle.command_actor(), tokens, now=timezone.now())
    (row,) = get(reader, "from=2026-06-15&to=2026-06-16&group_by=meter").json()["data"]
    assert row["quantity"] == "1.500"


def test_other_says_that_it_is_what_was_not_kept_apart(reader: lifecycle.Issued) -> None:
    used(reader.key.organization, reader.key.pk, START, resource="other")
    asked = "from=2026-06-15&to=2026-06-16&group_by=resource"
    assert "other" not in get(reader, asked).json()
    ResourceBound.objects.create(
        organization=reader.key.organization, meter="requests", kept=2, reached_at=timezone.now()
    )
    assert get(reader, asked).json()["other"] == {"requests": 2}
    assert "other" not in get(reader, asked.replace("resource", "key")).json()


def test_only_ones_own_usage_is_seen_and_only_with_the_scope(
    portal: Portal, reader: lifecycle.Issued, reporter: lifecycle.Issued
) -> None:
    used(portal.asked.key.organization, portal.asked.key.pk, START)
    assert get(reader, "from=2026-06-15&to=2026-06-16").json()["data"] == []
    for issued in (portal.asked, portal.verifier, reporter):
        problem(get(issued, "from=2026-06-15&to=2026-06-16"), 403, "INSUFFICIENT_SCOPE")
    problem(Client().get("/v1/usage?from=2026-06-15&to=2026-06-16"), 401, "MISSING_CREDENTIAL")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("", "query/from"),
        ("from=2026-06-15", "query/to"),
        ("from=&to=", "query/from"),
        ("from=yesterday&to=2026-06-16", "query/from"),
        ("from=2026-02-30&to=2026-06-16", "query/from"),
        ("from=2026-06-15&to=2026-06-16T00:30", "query/to"),
        ("from=2026-06-15&to=2026-06-16T00:00:00%2B05:30", "query/to"),
        ("from=2026-06-15T00:00:00.000001Z&to=2026-06-16", "query/from"),
        ("from=0001-01-01T00:00:00%2B14:00&to=2026-06-16", "query/from"),
        ("from=%00&to=2026-06-16", "query/from"),
        ("from=2026-06-15&to=2026-06-15", "query/to"),
        ("from=2026-06-15&to=2026-06-14", "query/to"),
        ("from=2026-06-15&to=2027-06-17", "query/to"),
        ("from=2026-06-15&to=2026-07-17&bucket=hour", "query/to"),
        ("from=2026-06-15&to=2026-06-16&bucket=week", "query/bucket"),
        ("from=2026-06-15&to=2026-06-16&group_by=secret", "query/group_by"),
        ("from=2026-06-15&to=2026-06-16&group_by=key,", "query/group_by"),
        ("from=2026-06-15&from=2026-06-15&to=2026-06-16", "query/from"),
        ("from=2026-06-15&to=2026-06-16&organization=acme", "query"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_where_it_does_not(
    reader: lifecycle.Issued, query: str, where: str
) -> None:
    parsed = problem(get(reader, query), 422, "INVALID")
    assert [each["location"] for each in parsed["errors"]] == [where]


def test_the_longest_ranges_are_allowed(reader: lifecycle.Issued) -> None:
    assert get(reader, "from=2026-06-15&to=2027-06-16").status_code == 200
    assert get(reader, "from=2026-06-15&to=2026-07-16&bucket=hour").status_code == 200
