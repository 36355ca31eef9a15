"""How much a month may hold: what huge events would add beyond it is refused, each alone.

Sums have 64 bits wherever they are kept. Beyond, PostgreSQL refuses a whole batch or a whole statement, and
SQLite goes on in floats; so one broken reporter could keep a month of everybody's from being closed. This
module alone knows the bound and who is held to it. It asks the database only where an event is huge.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from django.db.models import Sum

from keys.verdicts import Code
from usage import counting
from usage.billing.periods import Period
from usage.models import OrganizationRollup
from usage.rules import MAX_COST

# Of an organization and meter, in the smallest unit. Others add up several months of it: a statement at most
# three (its own and what came up to 35 days late), a page a year, which touches 13. Of the 2**63 that they
# may come to, 13 of these leave 3 * 2**59 for what is never asked about, calls and events of at most MAX_COST
# (2**31): 800 million of the highest, by one organization. Those who are asked take turns, so that several
# batches at once never find the same room.
MAX_MONTH: Final = 2**59
SENTENCE: Final = "With it the organization's month would be above 2**59 smallest units of this meter."


class Place(NamedTuple):
    """What has a bound of its own."""

    organization: int
    meter: str
    month: Period


def is_huge(quantity: int) -> bool:
    """Is an event of this quantity asked about? Not if a call of the gateway may cost as much."""
    return quantity > MAX_COST


def take_turns(places: Collection[Place]) -> None:
    """Wait for others who add huge events to the same organizations, and hold these until the end of the
    transaction. Before it writes anything, so that nobody waits in a circle."""
    counting.take_turns({place.organization for place in places})


def room(places: Collection[Place]) -> dict[Place, int]:
    """How much each may still take, in the smallest unit; a query a month. After `take_turns`."""
    found = dict.fromkeys(places, MAX_MONTH)
    for month in sorted({place.month for place in places}):
        sums = OrganizationRollup.objects.filter(
            organization__in={place.organization for place in places if place.month == month},
            meter__in={place.meter for place in places if place.month == month},
            hour__gte=month.start,
            hour__lt=month.end,
            outcome=Code.VALID.name,
        )
        summed = sums.values_list("organization_id", "meter").annotate(sum=Sum("quantity")).order_by()
        for organization, meter, quantity in summed:
            place = Place(organization, meter, month)
            if place in found:
                found[place] = MAX_MONTH - quantity
    return found
