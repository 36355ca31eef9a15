"""Visits: one of the provider's staff looks at a customer's pages as its members see them, for a while.

A visit has a reason, which the customer reads, and an end that comes by itself. It gives nothing but sight:
`keys.access` refuses every write under it, and who visits is no actor that any act here would let in.
"""

import datetime as dt
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db import transaction

from keys import audit
from keys.audit import SYSTEM, Actor
from keys.lifecycle import rules
from keys.lifecycle.actors import require_staff
from keys.lifecycle.refusals import Conflict, Forbidden
from keys.models import Organization, Visit

VISIT_LASTS: Final = dt.timedelta(minutes=30)


def begin_visit(actor: Actor, organization: Organization, *, reason: str, now: dt.datetime) -> Visit:
    """Begin to look at an organization's pages; a visit that the person has begun before ends. For people of
    the staff, of whom the caller knows that they may."""
    if actor.kind != "staff" or actor.id is None:
        raise Forbidden("Only the provider's staff can do this.")
    reason = rules.clean_text(reason, field="reason", label="The reason", maximum=200)
    with transaction.atomic():
        # Whoever begins two at once waits here, and so has one of them.
        get_user_model()._default_manager.select_for_update(no_key=True).get(pk=actor.id)
        for visit in Visit.objects.select_related("organization").filter(user_id=actor.id, ended_at=None):
            _end(actor, visit, "for another visit", now)
        visit = Visit.objects.create(
            organization=organization,
            user_id=actor.id,
            reason=reason,
            began_at=now,
            ends_at=now + VISIT_LASTS,
        )
        _append("organization.visit_began", actor, visit, {"ends_at": visit.ends_at.isoformat()}, now)
    return visit


def end_visit(actor: Actor, visit: Visit, *, now: dt.datetime) -> Visit:
    """Leave before the end. Raises Conflict for a visit that has ended."""
    require_staff(actor)
    with transaction.atomic():
        found = Visit.objects.select_for_update(of=("self",)).select_related("organization").get(pk=visit.pk)
        if found.ended_at is not None:
            raise Conflict("This visit has ended already.")
        _end(actor, found, "left", now)
    return found


def end_visits(*, now: dt.datetime) -> int:
    """Write down the end of visits whose time is over; how many."""
    over = Visit.objects.filter(ended_at=None, ends_at__lte=now).order_by("pk").values_list("pk", flat=True)
    ended = 0
    for pk in list(over):
        with transaction.atomic():
            visits = Visit.objects.select_for_update(of=("self",)).select_related("organization")
            visit = visits.filter(pk=pk, ended_at=None).first()
            if visit is not None:
                _end(SYSTEM, visit, "by itself", now)
                ended += 1
    return ended


def _end(actor: Actor, visit: Visit, how: str, now: dt.datetime) -> None:
    visit.ended_at = now
    visit.save(update_fields=["ended_at"])
    _append("organization.visit_ended", actor, visit, {"ended": how}, now)


def _append(act: str, actor: Actor, visit: Visit, data: dict[str, Any], now: dt.datetime) -> None:
    data = {"reason": visit.reason} | data
    audit.append(act, actor=actor, at=now, organization=visit.organization, data=data)
