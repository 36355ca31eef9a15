"""`POST /v1/usage/events` and `GET /v1/usage`: usage reported from outside, and usage read back.

Bodies and queries are read here by hand: one bad event must not refuse the others, a value must stay exactly
as it is written, and what makes a range too long no schema can say.
"""

import datetime as dt
import re
from typing import Any, Final

from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Router

from portal.api.answers import exact_json, invalid_at
from portal.api.callers import CallRequest, caller
from portal.api.document import declare
from portal.api.schemas import EventsAnswer, RejectedEvent, UsageAnswer, UsageRow
from usage import event_format, events, reports, resources, series
from usage.event_format import ID_LENGTH, MAX_EVENTS, Refusal, Reported

router = Router(tags=["usage"])

JSON: Final = "application/json"
BATCH: Final = "application/cloudevents-batch+json"
SINGLE: Final = "application/cloudevents+json"
_FIELDS: Final = {"source", "events"}

# What an item is stands in words alone: whatever it is, it refuses nothing but itself.
_EVENT = (
    "`id`: 1 to 200 characters, yours; with the source it makes the event count once. `key`: a key's id, "
    "never its secret. `meter`, `value`: a number from 0 or its text, in the meter's unit. Optional: `at` "
    "(RFC 3339, at most 35 days ago; now, without it), `resource`, and `settles`: the request id of a held "
    "call, which then counts the value instead of what was held, or nothing with `void: true`."
)
_CLOUDEVENT = (
    "CloudEvents 1.0 in JSON. `subject` is the key's id, `type` the meter unless `data.meter` is; `time` is "
    "the time; `data` has `value`, and may have `meter`, `resource`, `settles`, `void`."
)
_EXAMPLE = {"id": "7f1c", "key": "key_4kDfZ0aQ9sLmX2cV", "meter": "requests", "value": 3}
_CLOUD_EXAMPLE = {
    "specversion": "1.0",
    "id": "7f1c",
    "source": "/billing/worker",
    "type": "requests",
    "subject": "key_4kDfZ0aQ9sLmX2cV",
    "time": "2026-06-15T12:00:00Z",
    "data": {"value": 3},
}
_BODY: dict[str, Any] = {  # JSON Schema
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "type": "object",
                "required": ["events"],
                "additionalProperties": False,
                "properties": {
                    "events": {"type": "array", "maxItems": MAX_EVENTS, "items": {"description": _EVENT}},
                    "source": {
                        "type": "string",
                        "format": "label",
                        "minLength": 1,
                        "maxLength": ID_LENGTH,
                        "description": "Whose ids these are; without it your organization's short name.",
                    },
                },
            },
            "example": {"events": [_EXAMPLE]},
        },
        BATCH: {
            "schema": {"type": "array", "maxItems": MAX_EVENTS, "items": {"description": _CLOUDEVENT}},
            "example": [_CLOUD_EXAMPLE],
        },
        SINGLE: {
            "schema": {"type": "object", "description": _CLOUDEVENT},
            "example": _CLOUD_EXAMPLE,
        },
    },
}


@router.post(
    "/usage/events",
    auth=caller("portal:report"),
    response=EventsAnswer,
    operation_id="report_usage",
    summary="Report usage, or what held calls really cost",
    url_name="v1_usage_events",
    openapi_extra=declare("portal:report", body=True, requestBody=_BODY),
)
def report(request: CallRequest, response: HttpResponse) -> EventsAnswer:
    """Count up to 1,000 events, each once, for keys of any organization; staff grant the scope.

    Always 200 for a batch: an event that cannot count is in `rejected` with its place and why, and the others
    count. What the answer says is on disk. Send a batch again, whole or in part, whenever no answer came: ids
    are remembered for 70 days.
    """
    reported = _batch(request)
    counted = events.report(reported, timezone.now())
    return EventsAnswer(
        accepted=counted.accepted,
        duplicates=counted.duplicates,
        rejected=[
            RejectedEvent(index=each.index, code=each.code.value, detail=each.detail)
            for each in counted.rejected
        ],
    )


def _batch(request: CallRequest) -> list[Reported | Refusal]:
    """The events of the body, whichever of the three forms it has."""
    body = exact_json(request, (JSON, BATCH, SINGLE))
    if request.content_type == SINGLE:
        if not isinstance(body, dict):
            raise invalid_at("body", "This is not an object.")
        return [event_format.parse_cloudevent(body)]
    if request.content_type == BATCH:
        return [event_format.parse_cloudevent(item) for item in _items(body)]
    if not isinstance(body, dict):
        raise invalid_at("body", "This is not an object.")
    if not body.keys() <= _FIELDS:
        raise invalid_at("body", "There is an unknown field.")
    secret = request.auth.secret
    assert secret is not None
    # Not the key: whoever reports goes on with its ids when the key is replaced.
    source = body.get("source", secret.key.organization.slug)
    if not event_format.is_source(source):
        raise invalid_at("body", f"This is no text of 1 to {ID_LENGTH} printable characters.", "source")
    return [event_format.parse(item, source) for item in _items(body.get("events"), "events")]


def _items(value: object, *path: str) -> list[object]:
    if not isinstance(value, list):
        raise invalid_at("body", "This is not an array.", *path)
    if len(value) > MAX_EVENTS:
        raise invalid_at("body", f"There are more than {MAX_EVENTS} events.", *path)
    return value


# --- GET /v1/usage ---------------------------------------------------------------------------------

MAX_DAYS: Final = {"hour": 31, "day": 366, "month": 366}
_PARAMETERS: Final = {
    "from": "The first hour: a date, or a time on a whole hour (ISO 8601; UTC where no offset is given).",
    "to": "The hour behind the last, as `from`. At most 366 days later, 31 for hours.",
    "bucket": "hour, day or month, in UTC; day if it is not given.",
    "group_by": "Any of key, meter, resource, outcome, environment, with commas between them.",
    "cursor": "The `next` of the page before, with the same other parameters.",
}
_GROUP = f"({'|'.join(series.GROUPS)})"
_SCHEMAS: Final[dict[str, dict[str, Any]]] = {  # JSON Schema
    "from": {"type": "string", "format": "usage-hour"},
    "to": {"type": "string", "format": "usage-hour"},
    "bucket": {"type": "string", "enum": list(series.BUCKETS), "default": "day"},
    "group_by": {"type": "string", "pattern": f"^({_GROUP}(,{_GROUP})*)?$"},
    "cursor": {"type": "string", "format": "usage-cursor"},
}
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_HOUR = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
_SALT = "latchkey.usage.cursor"


@router.get(
    "/usage",
    auth=caller("portal:usage"),
    response=UsageAnswer,
    exclude_unset=True,
    by_alias=True,
    operation_id="usage",
    summary="What your organization used",
    url_name="v1_usage",
    openapi_extra=declare(
        "portal:usage",
        query=True,
        parameters=[
            {
                "in": "query",
                "name": name,
                "required": name in ("from", "to"),
                "description": description,
                "schema": _SCHEMAS[name],
            }
            for name, description in _PARAMETERS.items()
        ],
    ),
)
def usage(request: CallRequest, response: HttpResponse) -> UsageAnswer:
    """Calls and quantities by time and group, at most 1,000 rows a page, buckets without usage left out.

    The sums are those that pages and bills are made from. Where the portal no longer keeps hours, a day's
    sums are in its first.
    """
    secret = request.auth.secret
    assert secret is not None
    query = _query(request)
    organization = secret.key.organization.id
    complete_through = reports.complete_through()  # before the rows are read: they hold at least this much
    found = series.page(organization, query, _position(request, organization, query))
    answer = UsageAnswer(
        complete_through=complete_through,
        from_=query.start,
        to=query.end,
        bucket=query.bucket,  # type: ignore[arg-type]  # one of BUCKETS
        data=[_row(row) for row in found.rows],
    )
    if "resource" in query.groups and (kept := resources.reached(organization)):
        answer.other = kept
    if found.last is not None:
        answer.next = _cursor(organization, query, found.last)
    return answer


def _row(row: series.Row) -> UsageRow:
    """With the fields that were asked for and no others."""
    quantity = {} if row.quantity is None else {"quantity": row.quantity}
    fields = {"start": row.start, "end": row.end, **row.groups, "calls": row.calls, **quantity}
    return UsageRow.model_validate(fields)


def _query(request: HttpRequest) -> series.Query:
    """What is asked. Raises ValidationError with the parameter that is wrong."""
    given = request.GET
    if not given.keys() <= _PARAMETERS.keys():
        raise invalid_at("query", "There is an unknown parameter.")
    for name in given:
        if len(given.getlist(name)) > 1:
            raise invalid_at("query", "This is there twice.", name)
    bucket = given.get("bucket", "day")
    if bucket not in series.BUCKETS:
        raise invalid_at("query", f"This is none of {', '.join(series.BUCKETS)}.", "bucket")
    names = given["group_by"].split(",") if given.get("group_by") else []
    if not set(names) <= series.GROUPS.keys():
        raise invalid_at("query", f"There is something else than {', '.join(series.GROUPS)}.", "group_by")
    start, end = _hour(given.get("from"), "from"), _hour(given.get("to"), "to")
    if end <= start:
        raise invalid_at("query", "This is not after from.", "to")
    if end - start > dt.timedelta(days=MAX_DAYS[bucket]):
        raise invalid_at("query", f"This is more than {MAX_DAYS[bucket]} days after from.", "to")
    return series.Query(start, end, bucket, tuple(group for group in series.GROUPS if group in names))


def _hour(text: str | None, name: str) -> dt.datetime:
    if text is not None and (_DAY.fullmatch(text) or _HOUR.fullmatch(text)):
        try:
            moment = dt.datetime.fromisoformat(text.upper())
            moment = moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
            if not (moment.minute or moment.second or moment.microsecond) and 2000 <= moment.year <= 9000:
                return moment
        except (ValueError, OverflowError):
            pass  # a 30th of February
    raise invalid_at("query", "This is no date, nor a time on a whole hour.", name)


def _cursor(organization: int, query: series.Query, position: series.Position) -> str:
    """Signed, so that what comes back is what was given out, to this organization and for this query."""
    at = position.bucket.isoformat()
    return signing.dumps([organization, _asked(query), at, list(position.values)], salt=_SALT)


def _position(request: HttpRequest, organization: int, query: series.Query) -> series.Position | None:
    cursor = request.GET.get("cursor")
    if cursor is None:
        return None
    try:
        whose, asked, at, values = signing.loads(cursor, salt=_SALT)
    except signing.BadSignature:
        whose, asked, at, values = 0, [], "", []
    if (whose, asked) != (organization, _asked(query)):
        raise invalid_at("query", "This is not the next of a page with the same parameters.", "cursor")
    return series.Position(dt.datetime.fromisoformat(at), tuple(values))


def _asked(query: series.Query) -> list[str]:
    return [query.start.isoformat(), query.end.isoformat(), query.bucket, *query.groups]
