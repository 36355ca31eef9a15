"""What the components need beyond plain templates: icons, tones of states, short numbers.

Shows what it is given and nothing else; it never queries.
"""

import datetime as dt
import functools
from typing import Any, cast

from django import template
from django.contrib.messages import constants
from django.core.paginator import Page
from django.template.loader import get_template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from keys import rates
from portal.charts import compact as compact_number

register = template.Library()

# Every state a badge may show → the tone of its colours. Unknown states are neutral rather than wrong.
TONES = {
    "active": "good",
    "verified": "good",
    "approved": "good",
    "valid": "good",
    "closed": "good",
    "ready": "info",
    "waits": "warn",
    "expiring": "warn",
    "attention": "warn",
    "pending": "warn",
    "overlap": "warn",
    "unverified": "warn",
    "rate_limited": "warn",
    "quota_exceeded": "warn",
    "expired": "bad",
    "denied": "bad",
    "differs": "bad",
    "revoked": "bad",
    "suspended": "bad",
    "test": "info",
    "canary": "info",
    "hint": "info",
    "primary": "info",
    "current": "info",
    "disabled": "neutral",
    "ended": "neutral",
    "live": "neutral",
}

_MESSAGE_TONES = {
    constants.DEBUG: "info",
    constants.INFO: "info",
    constants.SUCCESS: "good",
    constants.WARNING: "warn",
    constants.ERROR: "danger",
}

# The icon that a notice of each tone opens with.
_NOTICE_ICONS = {"info": "info", "good": "check", "warn": "warn", "danger": "danger"}


@register.simple_tag
@functools.cache  # a page has dozens, and there are only so many
def icon(name: str) -> SafeString:
    """The icon `name` of components/icons.html; an unknown name raises TemplateDoesNotExist."""
    # What a template renders is safe text already; only the stubs say plain `str`.
    return cast("SafeString", get_template(f"components/icons.html#{name}").render())


@register.simple_tag
def moment(at: dt.datetime, date_only: object = False) -> SafeString:
    """For components/time.html, which says what it is. Tables have hundreds, and three filters cost each of
    them ten times as much."""
    utc = at.astimezone(dt.UTC)
    day, full = f"{utc.day} {utc:%b %Y}", f"{utc.day} {utc:%b %Y, %H:%M} UTC"
    kind, shown = ("date", day) if date_only else ("full", full)
    return format_html(
        '<time datetime="{}" data-local="{}" data-utc="{}">{}</time>', utc.isoformat(), kind, full, shown
    )


@register.filter
def ago(at: dt.datetime) -> str:
    """How long ago that was, in its two largest units (`2 hours, 5 minutes ago`), or `just now`."""
    if timezone.now() - at < dt.timedelta(minutes=1):
        return "just now"
    return f"{timesince(at)} ago"


@register.filter
def tone(state: object) -> str:
    """A state (a key's, a verdict's, an address's) → `good`, `warn`, `bad`, `info` or `neutral`."""
    return TONES.get(str(state).lower(), "neutral")


@register.filter
def message_tone(level: int) -> str:
    """A message's level → the tone of its notice."""
    return _MESSAGE_TONES.get(level, "info")


@register.filter
def notice_icon(tone: str) -> str:
    """A notice's tone → the name of its icon."""
    return _NOTICE_ICONS.get(tone, "info")


@register.filter
def grouped(number: int) -> str:
    """A whole number with commas between its thousands, for tables: `intcomma` costs twenty times as much."""
    return f"{number:,}"


@register.filter
def limits(text: str) -> str:
    """Rates and quotas as they are kept, `1000/second`, with commas between thousands: `1,000/second`."""
    return rates.shown(text)


@register.filter
def compact(value: Any) -> str:
    """A whole number in at most four figures: `7.5k`, `1.2M`. Anything else is returned as text."""
    return compact_number(value) if isinstance(value, int) else str(value)


@register.filter
def ticks(text: str) -> list[str]:
    """A text in parts: every second one stands in back quotes."""
    return text.split("`")


@register.filter
def page_numbers(page: Page[Any]) -> list[int | str]:
    """The first, the last, and this page's number with its neighbours; between them an ellipsis."""
    return list(page.paginator.get_elided_page_range(page.number, on_each_side=1, on_ends=1))
