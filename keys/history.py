"""Audit events in plain words, for the key page, the activity page and the overview.

The only place that knows what each act's `data` means to a reader. It never shows a secret, because no
event holds one, and it never fails on an act that it does not know.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.db.models import QuerySet

from keys import rates
from keys.models import AuditEvent, Key, Organization

TITLES = {
    "organization.created": "Organization created",
    "organization.edited": "Organization edited",
    "organization.suspended": "Organization suspended",
    "organization.resumed": "Organization resumed",
    "organization.policy_changed": "Policy changed",
    "organization.credited": "Credit given",
    "organization.transferred": "Ownership transferred",
    "organization.visit_began": "Staff look at these pages",
    "organization.visit_ended": "Staff look no longer",
    "member.added": "Member added",
    "member.invited": "Member invited",
    "member.invitation_resent": "Invitation sent again",
    "member.invitation_withdrawn": "Invitation withdrawn",
    "member.joined": "Member joined",
    "member.role_changed": "Role changed",
    "member.removed": "Member removed",
    "key.created": "Key created",
    "key.imported": "Key imported",
    "key.rotated": "Key rotated",
    "key.overlap_ended": "Old secret ended",
    "key.overlap_extended": "Old secret works longer",
    "key.rolled_back": "Rotation rolled back",
    "key.revoked": "Key revoked",
    "key.leaked": "Key reported as leaked",
    "key.canary_planted": "Canary planted",
    "key.canary_taken_up": "Canary taken up",
    "key.disabled": "Key disabled",
    "key.enabled": "Key enabled",
    "key.edited": "Key edited",
    "key.scope_requested": "Scope asked for",
    "key.scope_approved": "Scope approved",
    "key.scope_denied": "Scope denied",
    "key.retirement_announced": "Retirement announced",
    "key.retirement_withdrawn": "Retirement withdrawn",
    "key.retired": "Key retired",
    "key.signal_dismissed": "Warning dismissed",
    "trial.started": "Trial started",
    "trial.applied": "Trial applied",
    "trial.discarded": "Trial discarded",
    "trial.ended": "Trial over",
    "billing_alert.added": "Billing alert added",
    "billing_alert.removed": "Billing alert removed",
    "subscription.started": "Plan begins",
    "subscription.ended": "Plan ends",
    "period.closed": "Month closed",
    "spool.retired": "Journals given up on",
    "finding.seen": "Finding seen",
}
# Which acts deserve a warning colour, and which a good one; the others are neutral.
TONES = {
    "key.leaked": "bad",
    "key.revoked": "bad",
    "spool.retired": "bad",
    "organization.suspended": "bad",
    "key.disabled": "warn",
    "key.rolled_back": "warn",
    "key.retirement_announced": "warn",
    "key.retired": "warn",
    "key.created": "good",
    "key.imported": "good",
    "key.enabled": "good",
    "key.scope_approved": "good",
    "organization.resumed": "good",
    "organization.credited": "good",
}
_LABELS = {
    "name": "Name",
    "environment": "Environment",
    "scope": "Scope",
    "scopes": "Scopes",
    "note": "Note",
    "networks": "Allowed networks",
    "rates": "Rate limits",
    "quotas": "Quotas",
    "metadata": "Metadata",
    "expires_at": "Expires",
    "secret": "Secret",
    "secrets": "Secrets",
    "replaced": "Replaced",
    "ended": "Ended",
    "signal": "Warning",
    "until": "Comes back",
    "ends_at": "Ends",
    "stops_at": "Old secret works until",
    "retires_at": "Retires unless used, on",
    "idle_days": "Days without a call",
    "place": "Found at",
    "source": "Kind of place",
    "response": "What was done",
    "reason": "Reason",
    "member": "Member",
    "owner": "Owner",
    "role": "Role",
    "invited_by": "Invited by",
    "policy": "Policy",
    "external_customer": "Billing ID",
    "amount": "Amount",
    "period": "Month",
    "booked": "On the statement of",
    "alert": "Alert",
    "refuses": "Would have refused",
}
_LIMITS = {"rates", "quotas", "refuses"}
_TIMES = {"expires_at", "stops_at", "retires_at", "until", "ends_at"}
_NOTHING = {
    "refuses": "no call that is known",
    "expires_at": "never",
    "until": "when it is raised anew",
    "networks": "anywhere",
}
# A new key is from anywhere and without limits unless said otherwise: say only what was said.
_SILENT_WHEN_EMPTY = {
    "networks",
    "rates",
    "quotas",
    "scopes",
    "metadata",
    "reason",
    "note",
    "owner",
    "place",
    "source",
    "retires_at",
}
# What the event's own line says already, or concerns the provider alone.
_SAID_ALREADY = {
    "organization.created": ("slug", "policy", "name"),
    "key.created": ("name",),
    "key.imported": ("name",),
}


class Value(NamedTuple):
    """One value for people: a text, or a moment for the time component."""

    text: str
    at: dt.datetime | None = None
    shown: str = ""  # on pages, where it differs: limits with commas between thousands


class Detail(NamedTuple):
    """A fact of an event; two values are before and after."""

    label: str
    values: list[Value]


class Entry(NamedTuple):
    """One line of a history."""

    number: int
    at: dt.datetime
    title: str
    tone: str
    actor: str
    key: Key | None
    details: list[Detail]
    url: str = ""  # of a page about it, beside the key's


def entries(events: Iterable[AuditEvent]) -> list[Entry]:
    """The events in words. Select each event's `key` with it."""
    return [
        Entry(
            number=event.number,
            at=event.at,
            title=title(event.act),
            tone=TONES.get(event.act, "neutral"),
            actor=_actor(event),
            key=event.key,
            details=_details(event),
        )
        for event in events
    ]


def title(act: str) -> str:
    return TITLES.get(act, act.replace(".", " ").replace("_", " ").capitalize())


def _actor(event: AuditEvent) -> str:
    match event.actor_kind:
        case "staff":
            return f"{event.actor_label} (staff)"
        case "command":
            return "The provider, by command"
        case _:
            return event.actor_label


def _details(event: AuditEvent) -> list[Detail]:
    data: dict[str, Any] = dict(event.data)
    changes: dict[str, Any] = data.pop("changes", {})
    for name in _SAID_ALREADY.get(event.act, ()):
        data.pop(name, None)
    details = []
    for name, value in data.items():
        if name not in _LABELS or (not value and name in _SILENT_WHEN_EMPTY):
            continue
        # Changes of role, policy and owner hold [before, after] themselves.
        pair = value if name in ("role", "policy", "owner") and isinstance(value, list) else [value]
        details.append(Detail(_LABELS[name], [_value(name, each) for each in pair]))
    for name, pair in changes.items():
        if name in _LABELS and isinstance(pair, list):
            details.append(Detail(_LABELS[name], [_value(name, each) for each in pair]))
    return details


def _value(name: str, value: Any) -> Value:
    if value is None or value in ("", [], {}):
        return Value(_NOTHING.get(name, "none"))
    if name in _TIMES and isinstance(value, str):
        try:
            at = dt.datetime.fromisoformat(value)
        except ValueError:
            return Value(value)
        return Value(value, at)
    if isinstance(value, dict):
        return Value(", ".join(f"{key} = {text}" for key, text in value.items()))
    if isinstance(value, list):
        text = ", ".join(str(each) for each in value)
        return Value(text, shown=rates.shown(text) if name in _LIMITS else "")
    return Value(str(value))


def find(
    organization: Organization,
    *,
    act: str = "",
    actor: str = "",
    key_id: str = "",
    key_name: str = "",
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> QuerySet[AuditEvent]:
    """An organization's events, newest first: of one act, of actors and keys whose names hold these texts, of
    one key by its id, in [since, until)."""
    asked = {
        "act": act,
        "actor_label__icontains": actor,
        "key__public_id": key_id,
        "key__name__icontains": key_name,
        "at__gte": since,
        "at__lt": until,
    }
    events = organization.events.select_related("key").order_by("-number")
    return events.filter(**{name: value for name, value in asked.items() if value})


def latest_edit(key: Key) -> str:
    """The number of the last act that changed a key's settings, as a form's hidden field has it; empty: none
    did."""
    edits = key.events.filter(act__in=("key.edited", "key.scope_approved")).order_by("-number")
    return str(edits.values_list("number", flat=True).first() or "")
