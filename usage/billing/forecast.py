"""What a month will come to if usage goes on as it has: an estimate, and never a line of a bill.

Pure, as `usage.billing.rating` is: quantities grow evenly over the seconds that are left and are rated like
any others, so that included quantities and tiers count; fees are the whole month's.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from usage.billing import money, rating
from usage.billing.periods import Period
from usage.billing.rating import Terms, Used

_SECOND: Final = dt.timedelta(seconds=1)
LEAST_SECONDS: Final = 3600  # of less nothing can be said


def whole_month(
    used: Iterable[Used], terms: Mapping[int, Terms], period: Period, through: dt.datetime
) -> int:
    """One organization's month in minor units, given what it used until `through` and all its subscriptions
    of that month by id.

    The pace is that of the live usage since the month, or the first subscription in it, began; each
    subscription is given what it would come to in its seconds after `through`.
    """
    if not terms:
        return 0
    known = [each for each in used if each.subscription is not None]
    since = max(period.start, min(each.start for each in terms.values()))
    through = min(max(through, since), period.end)
    elapsed = (through - since) // _SECOND
    if elapsed >= LEAST_SECONDS:
        pace: Counter[tuple[str, str]] = Counter()
        for each in known:
            if each.live:
                pace[each.meter, each.resource] += each.quantity
        for agreed in terms.values():
            left = agreed._replace(start=max(agreed.start, through)).seconds_in(period)
            known += [
                Used(agreed.id, "", True, meter, resource, money.half_even(quantity * left, elapsed))
                for (meter, resource), quantity in pace.items()
                if left
            ]
    fees = (rating.fee(each, period) for each in terms.values())
    return sum(fee.amount for fee in fees if fee) + sum(rated.amount for rated in rating.rate(known, terms))
