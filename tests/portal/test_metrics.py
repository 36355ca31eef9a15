"""`/metrics`: what it tells, to whom, and that it tells what it can while the database is away."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import pytest
from django.db import OperationalError, connection
from django.test import RequestFactory
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from keys.models import Feed, Process
from portal import wsgi
from tests import builders
from usage.gateway import Environ, StartResponse
from usage.models import Finding, Spool

type Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def scrape(
    application: Application = wsgi.application, environ: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, str]:
    """The status line and the body."""
    request: Environ = {**RequestFactory().get("/metrics").environ, "REMOTE_ADDR": "127.0.0.1", **environ}
    answered: list[str] = []
    body = application(request, lambda status, headers: answered.append(status))
    return answered[0], b"".join(body).decode()


def values() -> dict[str, float]:
    status, body = scrape()
    assert status == "200 OK"
    return {
        sample.name.removeprefix("latchkey_"): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("journal_dir")
def test_it_tells_how_counting_and_the_feed_stand() -> None:
    builders.key(builders.organization("acme"))
    number = Feed.objects.get().number
    Spool.objects.create(id="a", host="h", pid=1, started_at=builders.NOW, sequence=41)
    Spool.objects.create(
        id="b", host="h", pid=2, started_at=builders.NOW, sequence=1, finished_at=builders.NOW
    )
    Finding.objects.create(kind="torn", spool="a", segment=1, text="torn", found_at=builders.NOW)
    found = values()
    assert found["journal_records_total"] == 42
    assert found["journals_waiting"] == 1
    assert found["complete_through_timestamp_seconds"] == builders.NOW.timestamp()
    assert found["findings"] == 1
    assert (found["database_up"], found["feed_number"]) == (1, number)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("journal_dir")
def test_it_tells_how_far_the_slowest_process_is_behind() -> None:
    builders.key(builders.organization("acme"))
    number = Feed.objects.get().number
    serving = [("fast", 0, 60), ("slow", 2, 60), ("gone", 3, -60)]  # behind by, serves for
    for id, behind, seconds in serving:
        until = timezone.now() + dt.timedelta(seconds=seconds)
        Process.objects.create(
            pk=id,
            host="h",
            pid=1,
            lock_path="",
            started_at=builders.NOW,
            feed_number=number - behind,
            serves_until=until,
        )
    found = values()
    assert found["feed_behind"] == 2
    assert found["processes"] >= 2  # and this one, if an earlier test has left it


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("journal_dir")
def test_what_this_process_knows_is_told_without_the_database() -> None:
    def is_away(*_: object) -> None:
        raise OperationalError("the database is away")

    with connection.execute_wrapper(is_away):
        found = values()
    assert found["database_up"] == 0
    assert found["journal_bytes"] >= 0
    assert "feed_number" not in found


@pytest.mark.parametrize("application", [wsgi.application, wsgi.gateway, wsgi.pages])
def test_every_role_refuses_a_stranger(application: Application) -> None:
    assert scrape(application, {"REMOTE_ADDR": "203.0.113.9"})[0] == "403 Forbidden"


def test_a_stranger_behind_a_trusted_proxy(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    assert scrape(environ={"HTTP_X_FORWARDED_FOR": "203.0.113.9"})[0] == "403 Forbidden"


@pytest.mark.parametrize("header", ["HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"])
def test_whoever_comes_through_a_proxy_that_nobody_trusts(header: str) -> None:
    status, _ = scrape(environ={header: "10.0.0.1"})
    assert status == "403 Forbidden"
