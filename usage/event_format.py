"""What an event from outside may look like: this portal's own JSON, and CloudEvents 1.0 in JSON.

Both become one `Reported`, so that everything behind this module knows one form; what cannot be one becomes a
`Refusal`, whose sentence never quotes what was sent, for a field in the wrong place may hold a key. Nothing
here looks anything up.
"""

import datetime as dt
import hashlib
import json
import re
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, NamedTuple

from keys import tokens
from usage import rules

MAX_EVENTS: Final = 1000  # in one batch
ID_LENGTH: Final = 200  # characters of an event's id, and of a source
_FIELDS: Final = frozenset({"id", "key", "meter", "value", "at", "resource", "settles", "void"})
_DATA_FIELDS: Final = frozenset({"meter", "value", "resource", "settles", "void"})
_NUMBER = re.compile(r"[+-]?[0-9]{1,60}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_MAX_DIGITS: Final = 28  # what arithmetic with decimals keeps; a quantity has 16
_MAX_EXPONENT: Final = 40
# RFC 3339, in either case.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Rejection(StrEnum):
    """Why an event is not counted. Sent again as it is, only NOT_YET may be."""

    CONFLICT = "CONFLICT"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    UNKNOWN_METER = "UNKNOWN_METER"
    INVALID_VALUE = "INVALID_VALUE"
    INVALID_EVENT = "INVALID_EVENT"
    TOO_LATE = "TOO_LATE"
    TOO_EARLY = "TOO_EARLY"
    SETTLED = "SETTLED"
    UNKNOWN_REQUEST = "UNKNOWN_REQUEST"
    NOT_HELD = "NOT_HELD"
    NOT_YET = "NOT_YET"


class Refusal(Exception):
    """An event that is not counted, and why, in a sentence that can be shown."""

    def __init__(self, code: Rejection, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


type Identity = tuple[str, str]  # source, id


class Reported(NamedTuple):
    """One event as it was sent. What was not given is empty; a value is None where the event is void."""

    source: str
    id: str
    key: str
    meter: str
    value: Decimal | None
    at: dt.datetime | None
    resource: str
    settles: str
    void: bool

    @property
    def identity(self) -> Identity:
        """What an event is counted once for."""
        return self.source, self.id

    @property
    def digest(self) -> str:
        """SHA-256 of what the event says: equal for the same event sent again, however it is written."""
        value = "" if self.value is None else str(self.value)
        at = "" if self.at is None else self.at.isoformat()
        said = [self.key, self.meter, value, at, self.resource, self.settles, self.void]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def number(text: str) -> Decimal:
    """For a JSON parser: the number exactly as it is written; NaN for one that no decimal can hold."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


def is_source(value: object) -> bool:
    """Can this be the first half of an event's identity?"""
    return _is_label(value, ID_LENGTH)


def parse(item: object, source: str) -> Reported | Refusal:
    """An item of this portal's own batch, of JSON values with numbers by `number`."""
    try:
        fields = _object(item, "An event")
        if not fields.keys() <= _FIELDS:
            raise Refusal(Rejection.INVALID_EVENT, "The event has an unknown field.")
        return _reported(source, fields.get("id"), fields.get("at"), fields)
    except Refusal as refusal:
        return refusal


def parse_cloudevent(item: object) -> Reported | Refusal:
    """A CloudEvent (JSON format 1.0): `type` is the meter unless `data.meter` is, `subject` the key's id."""
    try:
        event = _object(item, "An event")
        if event.get("specversion") != "1.0":
            raise Refusal(Rejection.INVALID_EVENT, "The event is no CloudEvent of specversion 1.0.")
        if not is_source(event.get("source")):
            raise Refusal(Rejection.INVALID_EVENT, f"The source is no text of 1 to {ID_LENGTH} characters.")
        if event.get("data_base64") is not None:
            raise Refusal(Rejection.INVALID_EVENT, "The event's data is not JSON.")
        data = _object(event.get("data"), "The event's data")
        if not data.keys() <= _DATA_FIELDS:
            raise Refusal(Rejection.INVALID_EVENT, "The event's data has an unknown field.")
        meter = event.get("type") if data.get("meter") is None else data["meter"]
        fields = data | {"key": event.get("subject"), "meter": meter}
        return _reported(event["source"], event.get("id"), event.get("time"), fields)
    except Refusal as refusal:
        return refusal


def _reported(source: str, event_id: object, at: object, fields: dict[str, Any]) -> Reported:
    """`fields` are JSON, any of which may be of any type; null is as good as absent."""
    if not _is_label(event_id, ID_LENGTH):
        raise Refusal(Rejection.INVALID_EVENT, f"The id is no text of 1 to {ID_LENGTH} printable characters.")
    settles = _text(fields, "settles")
    void = fields.get("void")
    if void is not None and not isinstance(void, bool):
        raise Refusal(Rejection.INVALID_EVENT, "void is neither true nor false.")
    if void and not settles:
        raise Refusal(Rejection.INVALID_EVENT, "Only what settles a held call can be void.")
    if void and fields.get("value") is not None:
        raise Refusal(Rejection.INVALID_EVENT, "What is void has no value.")
    try:
        resource = rules.resource(_text(fields, "resource"))
    except ValueError as error:
        raise Refusal(Rejection.INVALID_EVENT, str(error)) from None
    key, meter = _text(fields, "key"), _text(fields, "meter")
    if not settles and not (key and meter):
        raise Refusal(Rejection.INVALID_EVENT, "The event names no key or no meter.")
    return Reported(
        source=source,
        id=str(event_id),
        key=key,
        meter=meter,
        value=None if void else _value(fields.get("value")),
        at=None if at is None else _moment(at),
        resource=resource,
        settles=settles,
        void=bool(void),
    )


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(Rejection.INVALID_EVENT, f"{what} is no JSON object.")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(Rejection.INVALID_EVENT, f"{name} is no text.")
    return value or ""


def _is_label(value: object, length: int) -> bool:
    """Text that every database keeps, and not what looks like a key: it would stand in a row."""
    return (
        isinstance(value, str)
        and 1 <= len(value) <= length
        and value.isprintable()
        and tokens.redact(value) == value
    )


def _value(value: object) -> Decimal:
    """In one form for one number, small enough to be worked with."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = number(value)
    if not isinstance(value, Decimal) or not value.is_finite():
        raise Refusal(Rejection.INVALID_VALUE, "The value is no number, nor the text of one.")
    if not value:
        return Decimal(0)
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    written = "".join(map(str, digits))
    kept = written.rstrip("0")
    if sign:
        raise Refusal(Rejection.INVALID_VALUE, "The value is less than 0.")
    if len(kept) > _MAX_DIGITS or not -_MAX_EXPONENT <= value.adjusted() <= _MAX_EXPONENT:
        raise Refusal(Rejection.INVALID_VALUE, "The value has more digits than any meter counts.")
    return Decimal(f"{kept}e{exponent + len(written) - len(kept)}")


def _moment(value: object) -> dt.datetime:
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            return dt.datetime.fromisoformat(value.upper()).astimezone(dt.UTC)
        except (ValueError, OverflowError):
            pass  # a 30th of February, or the year 0
    raise Refusal(
        Rejection.INVALID_EVENT, "The time is not as in 2026-06-15T12:00:00Z, with its offset (RFC 3339)."
    )
