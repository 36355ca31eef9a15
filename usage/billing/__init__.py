"""A month's statement, from roll-ups to lines: what is billed, at which price, frozen and proved.

Others import from here; the modules below are each one step of it.
"""

from usage.billing.lines import Line, lines
from usage.billing.periods import Period

__all__ = ["Line", "Period", "lines"]
