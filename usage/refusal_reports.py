"""The log of refusals, read for pages: which calls, filtered, and what became of one request id.

Customers' pages begin with `of_organization`; only staff's begin with `of_everybody`. It never writes and
never sees a secret.
"""

import datetime as dt
import re
from collections.abc import Collection
from typing import Final, NamedTuple

from django.db.models import QuerySet

from keys.models import Organization
from usage.models import Refusal, Spool

_REQUEST: Final = re.compile(r"([0-9A-Za-z]{11})-([0-9]{1,18})(?:\.([0-9]{1,18}))?", re.ASCII)
_WITH = ("organization", "key", "secret__key")


class RequestId(NamedTuple):
    """What a call's `X-Portal-Request` says; `number` is 0 but where it was one of a flood."""

    spool: str
    sequence: int
    number: int


class Found(NamedTuple):
    """What is known of a request id. Without a refusal: will it be counted yet?"""

    request: RequestId
    refusal: Refusal | None
    is_pending: bool


def parse_request(text: str) -> RequestId | None:
    """The request id that this text is, or None."""
    match = _REQUEST.fullmatch(text)
    return match and RequestId(match[1], int(match[2]), int(match[3] or 0))


def of_organization(organization: Organization) -> QuerySet[Refusal]:
    """An organization's refusals, the newest first."""
    return _newest_first(Refusal.objects.filter(organization=organization))


def of_everybody() -> QuerySet[Refusal]:
    """All organizations' refusals and nobody's, the newest first."""
    return _newest_first(Refusal.objects.all())


def find(
    refusals: QuerySet[Refusal],
    *,
    organization: Organization | None = None,
    keys: Collection[int] | None = None,
    outcome: str = "",
    day: dt.date | None = None,
) -> QuerySet[Refusal]:
    """Those of this organization, of these keys (by primary key), with this code, on this UTC day."""
    if organization is not None:
        refusals = refusals.filter(organization=organization)
    if keys is not None:
        refusals = refusals.filter(key__in=keys)
    if outcome:
        refusals = refusals.filter(outcome=outcome)
    if day is not None:
        start = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
        refusals = refusals.filter(at__gte=start, at__lt=start + dt.timedelta(days=1))
    return refusals


def look_up(refusals: QuerySet[Refusal], request: RequestId) -> Found:
    """The refusal of this id among `refusals`; one of another organization is as one that never was."""
    refusal = refusals.filter(spool=request.spool, sequence=request.sequence).first()
    is_pending = (
        refusal is None
        and Spool.objects.filter(pk=request.spool, finished_at=None, sequence__lt=request.sequence).exists()
    )
    return Found(request, refusal, is_pending)


def _newest_first(refusals: QuerySet[Refusal]) -> QuerySet[Refusal]:
    return refusals.select_related(*_WITH).order_by("-at", "-id")
