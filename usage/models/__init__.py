"""How much was called: meters, spools with segments and findings, hourly roll-ups, refusals, last uses and
sources; what was reported from outside, the held calls that wait for it, and quotas; plans, prices,
subscriptions, the statements of closed months, credits; signals of what is amiss, trials of stricter limits.

`usage.drain`, `usage.events` and `usage.retention` alone count here, and `usage.ledger` for quotas; what
staff define goes through `usage.definitions` and `usage.billing`, what people decide about journals through
`usage.watermark` and `usage.findings`. Rows name keys and organizations without a database constraint: a
journal that outlived a restored database must still drain.
"""

from usage.models.billing import (
    AlertKind,
    BillingAccount,
    BillingAlert,
    BillingDetails,
    Plan,
    PlanVersion,
    Price,
    PricingModel,
    Subscription,
)
from usage.models.events import Event, Hold
from usage.models.journals import Finding, Segment, Spool, Watermark
from usage.models.meters import Aggregation, Meter
from usage.models.periods import ClosedPeriod, Credit, StatementAccount, StatementLine, Verification
from usage.models.quotas import QuotaLease, QuotaUse
from usage.models.refusals import Refusal
from usage.models.rollups import (
    OrganizationRollup,
    Resource,
    ResourceBound,
    ResponseRollup,
    Rollup,
    SecretUse,
)
from usage.models.signals import Signal
from usage.models.sources import ScopeUse, Source
from usage.models.trials import Outcome, Trial

__all__ = [
    "Aggregation",
    "AlertKind",
    "BillingAccount",
    "BillingAlert",
    "BillingDetails",
    "ClosedPeriod",
    "Credit",
    "Event",
    "Finding",
    "Hold",
    "Meter",
    "OrganizationRollup",
    "Outcome",
    "Plan",
    "PlanVersion",
    "Price",
    "PricingModel",
    "QuotaLease",
    "QuotaUse",
    "Refusal",
    "Resource",
    "ResourceBound",
    "ResponseRollup",
    "Rollup",
    "ScopeUse",
    "SecretUse",
    "Segment",
    "Signal",
    "Source",
    "Spool",
    "StatementAccount",
    "StatementLine",
    "Subscription",
    "Trial",
    "Verification",
    "Watermark",
]
