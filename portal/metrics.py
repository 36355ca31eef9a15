"""`/metrics`, for Prometheus: is this process ready, is counting behind, does every process hear the feed.

Answered beside Django, to callers in `GATEWAY_NETWORKS` alone. What is the database's is the same whichever
process is asked; while the database is away, what this process knows is still told. It names no customer and
no key, and writes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Count, Min, Q, Sum
from django.db.models.functions import Now
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from keys.models import Feed, Process
from portal.health import respond
from usage import client, findings, metering, room, watermark
from usage.gateway import Environ, StartResponse
from usage.metering import Readiness
from usage.models import Spool

PATH: Final = "/metrics"


def answer(
    environ: Environ, start_response: StartResponse, readiness: Callable[[], Readiness]
) -> list[bytes]:
    """All metrics (text exposition format 0.0.4); 403 for a caller who may not read them."""
    if not _may_read(environ):
        reason = b"GATEWAY_NETWORKS lists who may read this.\n"
        return respond(start_response, "403 Forbidden", "text/plain", reason)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Portal(readiness))
    return respond(start_response, "200 OK", CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))


def _may_read(environ: Mapping[str, Any]) -> bool:  # Any: a WSGI environment
    """Who calls must be in `GATEWAY_NETWORKS`. Through a proxy that nobody trusts, anybody may call."""
    peer: str = environ["REMOTE_ADDR"]
    if not client.is_trusted(peer) and {"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"} & environ.keys():
        return False
    return client.may_ask(peer) and client.may_ask(client.address(environ))


class _Portal(Collector):
    """Everything there is to tell, found anew for each scrape."""

    def __init__(self, readiness: Callable[[], Readiness]) -> None:
        self._readiness = readiness

    def collect(self) -> Iterator[Metric]:
        yield from self._of_this_process()
        try:
            found = list(_of_the_database())
        except DatabaseError:
            found = []
        finally:
            connection.close()
        yield _gauge("database_up", "1 if the database answers.", bool(found))
        yield from found

    def _of_this_process(self) -> Iterator[Metric]:
        yield _gauge("ready", "1 if this process may get traffic.", not self._readiness().reasons)
        yield _gauge(
            "secrets_in_memory", "Live secrets that this process knows.", metering.secrets_in_memory()
        )
        held = room.held_bytes(settings.USAGE_JOURNAL_DIR)
        yield _gauge("journal_bytes", "What this host's journals take that are not drained.", held)
        bound = settings.USAGE_JOURNAL_MAX_BYTES
        yield _gauge("journal_max_bytes", "What they may take; 0: anything.", bound)


def _of_the_database() -> Iterator[Metric]:
    waiting = Q(finished_at=None, retired_at=None)
    journals = Spool.objects.aggregate(
        records=Sum("sequence", default=0), waiting=Count("pk", filter=waiting)
    )
    records = CounterMetricFamily("latchkey_journal_records", "Records counted from journals.")
    records.add_metric([], journals["records"])
    yield records
    yield _gauge("journals_waiting", "Journals that are still written or drained.", journals["waiting"])
    through = watermark.complete_through()
    if through is not None:
        help = "Every call answered before this moment is counted."
        yield _gauge("complete_through_timestamp_seconds", help, through.timestamp())
    yield _gauge("findings", "Findings in journals that nobody has looked at.", findings.unseen())
    number = Feed.objects.values_list("number", flat=True).first() or 0
    yield _gauge("feed_number", "The last act that is to be heard.", number)
    processes = Process.objects.filter(serves_until__gt=Now()).aggregate(
        count=Count("pk"), heard=Min("feed_number")
    )
    yield _gauge("processes", "Processes that answer from memory.", processes["count"])
    behind = max(number - (number if processes["heard"] is None else processes["heard"]), 0)
    yield _gauge("feed_behind", "Acts that some process has not heard of yet.", behind)


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"latchkey_{name}", help, value=float(value))
