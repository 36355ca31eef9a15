"""What the public docs list: verdicts, scopes, events and recipes, read from where they are defined.

It keeps no list of its own but of what a proxy may ask and is told, and of what to do about an event.
"""

from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from keys import prefixes
from keys.models import Scope
from keys.scopes import PORTAL, STAFF_ONLY
from keys.verdicts import Code
from usage import meters as all_meters
from usage.event_format import Rejection
from usage.meters import Meter

RULE = [
    (
        "scope",
        "A scope that the key must have, such as orders:read; repeat it for several, all of them needed.",
    ),
    ("environment", "Only live keys, or only test keys. Without it both."),
    ("resource", "A label of yours for what is called; usage is counted by it. Use few different ones."),
    ("cost", "How much the call counts, a whole number of the meter’s smallest unit; 1 without it."),
    ("meter", "What it counts as, one that staff have defined; requests without it."),
    (
        "hold",
        "1 counts the call at its cost until an event says what it was; X-Portal-Request names the call.",
    ),
    ("deny", "403 sends every refusal but 401 as 403, for nginx; X-Portal-Status has the true status."),
]

IDENTITY = [
    ("X-Portal-Key", "The key’s public id. Empty for a CORS preflight, which carries no key."),
    ("X-Portal-Organization", "Whose key it is: the organization’s short name."),
    ("X-Portal-Environment", "Either live or test."),
    ("X-Portal-Scopes", "All the key’s scopes, with spaces between them."),
    (
        "X-Portal-Key-Expires",
        "In the key’s last 30 days, when it expires, as in 2026-06-15T12:00:00Z; before that empty.",
    ),
    ("X-Portal-Request", "The call’s id; a refused call is found by it under Refusals."),
    ("X-Portal-Status", "What the portal answered; 200 if the API sees it."),
    ("X-Portal-Code", "The code of the answer; VALID if the API sees it."),
]

EVENT = [
    ("id", "Yours, 1 to 200 characters. With the batch’s source it makes the event count once."),
    ("key", "The id of the key that used something, key_…; never its secret."),
    ("meter", "What was used."),
    ("value", "How much, from 0, in the meter’s unit: a number or its text, kept exactly as it is written."),
    ("at", "When, as in 2026-06-15T12:00:00Z: at most 35 days ago. Now, without it."),
    ("resource", "A label of yours that usage is counted by, such as a model’s name."),
    ("settles", "The request id of a held call. Key, meter and resource are then the call’s."),
    ("void", "With settles: true for a call that is to cost nothing."),
]

KEY_FIELDS = [
    ("name", "What you recognise it by later. The only one that a new key needs."),
    ("environment", "Either live or test; the caller’s own, without it. It never changes."),
    ("scopes", "What the key may do. A caller grants only scopes that it has itself."),
    ("expires_at", "As in 2026-09-15T12:00:00Z; null is never. Left out: the policy’s usual life."),
    ("networks", "Addresses or CIDR networks that it may be used from; an empty list is anywhere."),
    ("rates", "Such as 10/second, beside those of the policy."),
    ("quotas", "Such as 100000/month, beside those of the policy."),
    ("metadata", "Labels of your own: names with texts."),
    ("disabled", "Only in a change: true refuses its calls until it is false again."),
]

STATEMENT = [
    ("period", "The month, as in 2026-05."),
    ("organization", "Your organization’s short name."),
    ("organization_name", "Its name."),
    ("external_customer", "Its number with the provider, if it has one."),
    ("key", "The key’s id; empty for fees and credits."),
    ("key_name", "Its name."),
    ("environment", "Either live or test."),
    ("meter", "What was counted."),
    ("resource", "The resource, where it has a price of its own or where nothing has a price."),
    ("unit", "What the quantity is in. A fee is in s, seconds."),
    ("tier", "The tier’s number, where the price has tiers."),
    ("quantity", "How much; included and billable together."),
    ("included", "How much of it the plan includes."),
    ("billable", "How much of it is billed."),
    ("unit_price", "The price of a unit or package; of a fee the whole month’s. Empty for corrections."),
    ("amount", "What it costs."),
    ("currency", "In which currency."),
    ("kind", "One of usage, fee and correction."),
    ("original_period", "Of a correction: the month that it is about."),
]

_REJECTIONS = {
    Rejection.CONFLICT: "The id is counted with another body. If this is another event, give it a new id.",
    Rejection.UNKNOWN_KEY: "Send the key’s id, key_…, which X-Portal-Key and the key’s page show.",
    Rejection.UNKNOWN_METER: "Send the name of a meter of this portal.",
    Rejection.INVALID_VALUE: "Send a number from 0, with the meter’s decimals at most; or the month is full.",
    Rejection.INVALID_EVENT: "The detail says what is missing, unknown or does not fit the held call.",
    Rejection.TOO_LATE: "It was more than 35 days ago and cannot be counted any more.",
    Rejection.TOO_EARLY: "It is more than 5 minutes ahead: set the clock, and send it again.",
    Rejection.SETTLED: "Another event has settled this call; a call is settled once.",
    Rejection.UNKNOWN_REQUEST: "Send X-Portal-Request of the call as it was answered.",
    Rejection.NOT_HELD: "The call was made without hold=1, was refused, or was more than 70 days ago.",
    Rejection.NOT_YET: "Send the same event again in a few seconds: the call is being counted.",
}


class CodeRow(NamedTuple):
    """One line of the codes table."""

    name: str
    status: int
    title: str
    sentence: str
    advice: str


def codes() -> list[CodeRow]:
    """Every code of the contract, in its order."""
    return [CodeRow(code.name, code.status, code.title, code.sentence, code.advice) for code in Code]


def scope_groups() -> list[tuple[str, list[Scope]]]:
    """The API's own scopes by resource."""
    scopes = Scope.objects.exclude(name__startswith=PORTAL).order_by("name")
    return [(resource, list(found)) for resource, found in groupby(scopes, key=_resource)]


def portal_scopes() -> list[Scope]:
    """Those of this portal's machine API that customers choose themselves."""
    return list(Scope.objects.filter(name__startswith=PORTAL).exclude(name__in=STAFF_ONLY).order_by("name"))


def _resource(scope: Scope) -> str:
    return scope.name.rpartition(":")[0]


def meters() -> list[Meter]:
    """What may be counted now, the built-in first."""
    return list(all_meters.read(archived=False).values())


def rejections() -> list[tuple[str, str]]:
    """Why an event is not counted, and what to do."""
    return [(code.value, _REJECTIONS[code]) for code in Rejection]


def usage_lines() -> dict[str, str]:
    """Shell lines that report usage, settle held calls and read usage back."""
    key = '"key": "key_4kDfZ0aQ9sLmX2cV"'
    cloudevent = (
        '[{"specversion": "1.0", "id": "job-17", "source": "/worker", "type": "requests",\n'
        '   "subject": "key_4kDfZ0aQ9sLmX2cV", "data": {"value": 3}}]'
    )
    return {
        "report": _post(
            '{"events": [\n'
            f'   {{"id": "job-17", {key}, "meter": "requests", "value": 3}},\n'
            f'   {{"id": "job-18", {key}, "meter": "requests", "value": "2"}}]}}'
        ),
        "cloudevents": _post(cloudevent, "application/cloudevents-batch+json"),
        "hold": (
            f'curl -i -H "Authorization: Bearer $API_KEY" \\\n'
            f'  "{settings.PORTAL_URL}/gateway/authorize?cost=100&hold=1"'
        ),
        "settle": _post('{"events": [{"id": "chat-9", "settles": "\'"$REQUEST"\'", "value": 37}]}'),
        "void": _post('{"events": [{"id": "chat-10", "settles": "\'"$REQUEST"\'", "void": true}]}'),
        "read": (
            'curl -s -H "Authorization: Bearer $API_KEY" \\\n'
            f'  "{settings.PORTAL_URL}/v1/usage?from=2026-06-01&to=2026-07-01&bucket=day&group_by=key,meter"'
        ),
    }


@cache
def patterns() -> dict[str, str]:
    """A rule for each scanner, by its name as a template can write it. Kept: the one prefix that could become
    new is this process's own."""
    known = prefixes.known_prefixes()
    return {
        name.replace("-", "_"): rule(known, settings.PORTAL_NAME) for name, rule in prefixes.FORMATS.items()
    }


def key_lines() -> dict[str, str]:
    """Shell lines that list, make, change, rotate and revoke keys."""
    key = "/key_4kDfZ0aQ9sLmX2cV"
    return {
        "list": (
            f'curl -s -H "Authorization: Bearer $MANAGER" \\\n  "{settings.PORTAL_URL}/v1/keys?state=active"'
        ),
        "create": _key_call("", '{"name": "Worker", "scopes": ["orders:read"]}'),
        "edit": _key_call(key, '{"networks": ["203.0.113.0/24"]}', "-X PATCH "),
        "rotate": _key_call(f"{key}/rotate", '{"overlap": 86400}'),
        "revoke": _key_call(f"{key}/revoke", '{"reason": "No longer needed"}'),
    }


def _key_call(path: str, body: str, method: str = "") -> str:
    return (
        f'curl -s {method}{settings.PORTAL_URL}/v1/keys{path} \\\n  -H "Authorization: Bearer $MANAGER" \\\n'
        f"  -H \"Content-Type: application/json\" \\\n  -d '{body}'"
    )


def _post(body: str, kind: str = "application/json") -> str:
    return (
        f'curl -s {settings.PORTAL_URL}/v1/usage/events -H "Authorization: Bearer $REPORTER" \\\n'
        f"  -H \"Content-Type: {kind}\" \\\n  -d '{body}'"
    )


@cache
def check_statement() -> str:
    """The script with which customers check a statement, whole."""
    script: Path = settings.BASE_DIR / "usage" / "check_statement.py"
    return script.read_text()


@cache
def recipes() -> dict[str, str]:
    """The text of each file in `usage/recipes/`, by its name as a template can write it: `nginx_conf`."""
    folder: Path = settings.BASE_DIR / "usage" / "recipes"
    return {
        path.name.replace(".", "_").replace("-", "_"): path.read_text() for path in sorted(folder.iterdir())
    }
