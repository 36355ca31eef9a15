"""Roll-ups without their keys: the same sums in few rows, for questions that name no key.

Who counts adds here first, and to the roll-ups then: so two who count wait for each other here alone, where
each takes its rows in order, and never in a circle. Nobody bills by these rows. Where somebody else wrote
roll-ups (a worker of a version that knew nothing of this), `mend` finds the days and sums them up anew.
"""

import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Final

from django.db import connection, transaction
from django.db.models import Min

from keys.models import Key
from usage import bulk, counting
from usage.models import OrganizationRollup, Rollup

logger = logging.getLogger(__name__)

RECENT: Final = dt.timedelta(days=3)
_DAY: Final = dt.timedelta(days=1)
_CHUNK: Final = 5000  # keys looked up at once
_GROUP = "organization_id, hour, environment, meter, resource, outcome, booked_period"

_ADD = f"""
INSERT INTO usage_organizationrollup ({_GROUP}, calls, quantity)
{{rows}}
ON CONFLICT ({_GROUP}) DO UPDATE SET
  calls = usage_organizationrollup.calls + EXCLUDED.calls,
  quantity = usage_organizationrollup.quantity + EXCLUDED.quantity
"""
_SUMMED_UP = """
SELECT row.organization_id, row.hour, coalesce(key.environment, '') AS environment, row.meter, row.resource,
  row.outcome, row.booked_period, CAST(sum(row.calls) AS bigint) AS calls,
  CAST(sum(row.quantity) AS bigint) AS quantity
FROM usage_rollup AS row LEFT JOIN keys_key AS key ON key.id = row.key_id
WHERE row.hour >= %s AND row.hour < %s
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_DIFFERS = f"""
SELECT 1 FROM (
  SELECT * FROM ({_SUMMED_UP}) AS summed_up
  UNION ALL
  SELECT {_GROUP}, -calls, -quantity FROM usage_organizationrollup WHERE hour >= %s AND hour < %s
) AS both_signs
GROUP BY {_GROUP} HAVING sum(calls) <> 0 OR sum(quantity) <> 0 LIMIT 1
"""  # noqa: S608  # made of what stands above
_FORGET = "DELETE FROM usage_organizationrollup WHERE hour >= %s AND hour < %s"
_FILL = f"INSERT INTO usage_organizationrollup ({_GROUP}, calls, quantity) {_SUMMED_UP}"


def add(added: Sequence[bulk.Row]) -> None:
    """Add what will be added to the roll-ups, inside the caller's transaction, which shares in counting.

    Each is a row of theirs: the group, the booked period, calls, quantity; times as the database takes them.
    """
    environments = _environments({key for _, _, key, *_ in added})
    sums: dict[tuple[object, ...], list[int]] = {}
    for organization, hour, key, meter, resource, outcome, booked, calls, quantity in added:
        group = organization, hour, environments.get(key, ""), meter, resource, outcome, booked
        total = sums.setdefault(group, [0, 0])
        total[0] += calls
        total[1] += quantity
    bulk.execute(_ADD, [(*group, *sums[group]) for group in sorted(sums)])


def wrong(start: dt.datetime, end: dt.datetime) -> Iterator[dt.datetime]:
    """Each UTC day of [start, end), all midnights, that is not what its roll-ups add up to."""
    firsts = [table.objects.aggregate(first=Min("hour"))["first"] for table in (Rollup, OrganizationRollup)]
    first = min((each for each in firsts if each is not None), default=end)
    start = max(start, first.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0))
    while start < end:
        following = start + _DAY
        if _execute(_DIFFERS, start, following, start, following):
            yield start
        start = following


def mend(start: dt.datetime, end: dt.datetime) -> list[dt.date]:
    """Sum up anew each day that is `wrong`; returns those. Each of them is a transaction of its own,
    alone in counting."""
    found = []
    for day in wrong(start, end):
        with transaction.atomic():
            counting.alone()
            _execute(_FORGET, day, day + _DAY)
            _execute(_FILL, day, day + _DAY)
        found.append(day.date())
    return found


def mend_recent(now: dt.datetime) -> None:
    """`mend` the last days and what was reported ahead; says so if there was anything to be mended."""
    today = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if days := mend(today - RECENT, today + dt.timedelta(days=2)):
        logger.warning(
            "Usage of %s was counted by a worker of an older version; its sums were made anew.",
            ", ".join(map(str, days)),
        )


def _environments(keys: set[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for some in batched(sorted(keys), _CHUNK):
        found.update(Key.objects.filter(pk__in=some).values_list("pk", "environment"))
    return found


def _execute(statement: str, *moments: dt.datetime) -> list[tuple[object, ...]]:
    adapted = [connection.ops.adapt_datetimefield_value(each) for each in moments]
    with connection.cursor() as cursor:
        cursor.execute(statement, adapted)
        return cursor.fetchall() if cursor.description is not None else []
