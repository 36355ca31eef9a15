"""What staff define for counting: meters. One function an act, one transaction, one audit event each.

Admin and command call it; the events reach every process by the same feed as acts on keys. What a meter
counts is fixed at its creation, and no meter is ever deleted: nothing here changes what was counted.
"""

import datetime as dt

from django.db import IntegrityError, transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict, Invalid
from keys.lifecycle.actors import require_staff
from keys.lifecycle.rules import clean_text
from usage.meters import MAX_DECIMALS, REQUESTS, is_name
from usage.models import Aggregation, Meter


def create_meter(
    actor: Actor,
    *,
    slug: str,
    unit: str,
    title: str,
    aggregation: str = Aggregation.SUM.value,
    decimals: int = 0,
    now: dt.datetime,
) -> Meter:
    """A new meter; one of this slug that exists already, archived or not, is a Conflict. Staff only."""
    require_staff(actor)
    meter = Meter(
        slug=_clean_slug(slug),
        unit=_clean_unit(unit),
        title=_clean_title(title),
        aggregation=_clean_aggregation(aggregation),
        decimals=_clean_decimals(decimals, aggregation),
        created_at=now,
    )
    try:
        with transaction.atomic():
            meter.save(force_insert=True)
            data = {"meter": meter.slug, "title": meter.title} | _counted(meter)
            audit.append("meter.created", actor=actor, at=now, data=data)
    except IntegrityError:
        raise Conflict("A meter with this slug exists already.", "slug") from None
    return meter


def require_same(meter: Meter, *, unit: str, aggregation: str, decimals: int) -> None:
    """Raise Conflict unless the meter counts just this and is still in use."""
    wanted = Meter(unit=_clean_unit(unit), aggregation=aggregation, decimals=decimals)
    if _counted(wanted) != _counted(meter):
        raise Conflict(
            f"The meter {meter.slug} counts something else, and what a meter counts never changes; choose "
            "another slug.",
            "slug",
        )
    if meter.archived_at is not None:
        raise Conflict(f"The meter {meter.slug} is archived, for good; choose another slug.", "slug")


def edit_meter(actor: Actor, meter: Meter, *, title: str, now: dt.datetime) -> Meter:
    """Change what people read; nothing else of a meter ever changes. Staff only."""
    require_staff(actor)
    title = _clean_title(title)
    with transaction.atomic():
        meter = _locked(meter)
        if meter.title != title:
            before, meter.title = meter.title, title
            meter.save(update_fields=["title"])
            data = {"meter": meter.slug, "changes": {"title": [before, title]}}
            audit.append("meter.changed", actor=actor, at=now, data=data)
    return meter


def archive_meter(actor: Actor, meter: Meter, *, now: dt.datetime) -> Meter:
    """Refuse it for new calls and events, for good; what it counted is still shown and billed. Staff only."""
    require_staff(actor)
    with transaction.atomic():
        meter = _locked(meter)
        if meter.archived_at is None:
            meter.archived_at = now
            meter.save(update_fields=["archived_at"])
            audit.append("meter.archived", actor=actor, at=now, data={"meter": meter.slug})
    return meter


def _locked(meter: Meter) -> Meter:
    return Meter.objects.select_for_update(no_key=True).get(pk=meter.pk)


def _counted(meter: Meter) -> dict[str, str | int]:
    """What never changes."""
    return {"unit": meter.unit, "aggregation": meter.aggregation, "decimals": meter.decimals}


def _clean_slug(value: str) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise Invalid(
            "A meter's slug is a lower-case letter, then lower-case letters, digits and single hyphens or "
            "underscores, at most 50 characters.",
            "slug",
        )
    if value == REQUESTS.name:
        raise Conflict("The meter requests is built in and cannot be changed.", "slug")
    return value


def _clean_unit(value: str) -> str:
    return clean_text(value, field="unit", label="The unit", maximum=40)


def _clean_title(value: str) -> str:
    return clean_text(value, field="title", label="The title", maximum=100)


def _clean_aggregation(value: str) -> str:
    if value not in Aggregation.values:
        raise Invalid("The aggregation is sum or count.", "aggregation")
    return value


def _clean_decimals(value: int, aggregation: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DECIMALS:
        raise Invalid(f"The decimals are a whole number from 0 to {MAX_DECIMALS}.", "decimals")
    if value and aggregation == Aggregation.COUNT.value:
        raise Invalid("A count has no decimals.", "decimals")
    return value
