"""FOCUS 1.2, the FinOps Open Cost and Usage Specification: CSV with its columns, and the metadata beside it.

One row a line. What FOCUS has no column for stands in columns that begin with `x_`. Unit prices are among
those: FOCUS wants a cost to be quantity × unit price, which what is included, packages and a key's share of a
rounded amount are not.
"""

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from django.conf import settings

from usage.billing import Period
from usage.billing.lines import FEE_UNIT
from usage.exports.cells import Cells
from usage.exports.csv import guarded, row

VERSION: Final = "1.2"
NO_CURRENCY: Final = "XXX"  # ISO 4217: no currency is involved, because nothing is charged
_CREATED: Final = "2026-11-29T00:00:00Z"  # when these columns were settled on; another set has another id

STRING, DECIMAL, DATETIME = "STRING", "DECIMAL", "DATETIME"
COLUMNS: Final = {
    "BilledCost": DECIMAL,
    "BillingAccountId": STRING,
    "BillingAccountName": STRING,
    "BillingCurrency": STRING,
    "BillingPeriodEnd": DATETIME,
    "BillingPeriodStart": DATETIME,
    "ChargeCategory": STRING,
    "ChargeClass": STRING,
    "ChargeDescription": STRING,
    "ChargeFrequency": STRING,
    "ChargePeriodEnd": DATETIME,
    "ChargePeriodStart": DATETIME,
    "CommitmentDiscountStatus": STRING,
    "ConsumedQuantity": DECIMAL,
    "ConsumedUnit": STRING,
    "ContractedCost": DECIMAL,
    "EffectiveCost": DECIMAL,
    "InvoiceId": STRING,
    "InvoiceIssuerName": STRING,
    "ListCost": DECIMAL,
    "PricingQuantity": DECIMAL,
    "PricingUnit": STRING,
    "ProviderName": STRING,
    "PublisherName": STRING,
    "ServiceCategory": STRING,
    "ServiceName": STRING,
    "ServiceSubcategory": STRING,
    "x_Environment": STRING,
    "x_ExternalCustomer": STRING,
    "x_Included": DECIMAL,
    "x_Key": STRING,
    "x_KeyName": STRING,
    "x_Kind": STRING,
    "x_Meter": STRING,
    "x_OriginalPeriod": STRING,
    "x_Resource": STRING,
    "x_Tier": STRING,
    "x_UnitPrice": DECIMAL,
}


def render(lines: Iterable[Cells]) -> Iterator[bytes]:
    """The header, then each line, as bytes."""
    yield row(COLUMNS)
    for cells in lines:
        charge = _charge(cells)
        yield row(_cell(charge[name], kind) for name, kind in COLUMNS.items())


def metadata() -> Iterator[bytes]:
    """The schema of the file, as FOCUS has it: always the same for this version of it."""
    schema = {
        "DataGenerator": {"DataGenerator": settings.PORTAL_NAME},
        "Schema": {
            "SchemaId": f"latchkey-focus-{VERSION}-1",
            "FocusVersion": VERSION,
            "CreationDate": _CREATED,
            "ColumnDefinition": [_definition(name, kind) for name, kind in COLUMNS.items()],
        },
    }
    yield json.dumps(schema, indent=2).encode() + b"\n"


def _charge(cells: Cells) -> Cells:
    """A line's row by its columns."""
    booked = str(cells["period"])
    original = str(cells["original_period"] or "")
    used = original or booked
    (begins, ends), (from_, until) = _bounds(booked), _bounds(used)
    amount, name = str(cells["amount"] or "0"), settings.PORTAL_NAME
    category, frequency = _category(cells)
    credit = category == "Credit"
    unit = "Seconds" if cells["unit"] == FEE_UNIT else cells["unit"] or "Unit"
    return {
        "BilledCost": amount,
        "BillingAccountId": cells["organization"],
        "BillingAccountName": cells["organization_name"] or cells["organization"],
        "BillingCurrency": cells["currency"] or NO_CURRENCY,
        "BillingPeriodEnd": ends,
        "BillingPeriodStart": begins,
        "ChargeCategory": category,
        "ChargeClass": "Correction" if used != booked else None,
        "ChargeDescription": _description(cells),
        "ChargeFrequency": frequency,
        "ChargePeriodEnd": until,
        "ChargePeriodStart": from_,
        "CommitmentDiscountStatus": None,
        "ConsumedQuantity": None if credit else cells["quantity"],
        "ConsumedUnit": None if credit else unit,
        "ContractedCost": amount,
        "EffectiveCost": amount,
        "InvoiceId": None,  # a statement is no invoice
        "InvoiceIssuerName": name,
        "ListCost": amount,
        "PricingQuantity": None if credit else cells["billable"],
        "PricingUnit": None if credit else unit,
        "ProviderName": name,
        "PublisherName": name,
        "ServiceCategory": "Integration",
        "ServiceName": f"{name} API",
        "ServiceSubcategory": "API Management",
        "x_Environment": cells["environment"],
        "x_ExternalCustomer": cells["external_customer"],
        "x_Included": cells["included"],
        "x_Key": cells["key"],
        "x_KeyName": cells["key_name"],
        "x_Kind": cells["kind"],
        "x_Meter": cells["meter"],
        "x_OriginalPeriod": original,
        "x_Resource": cells["resource"],
        "x_Tier": cells["tier"],
        "x_UnitPrice": cells["unit_price"],
    }


def _category(cells: Cells) -> tuple[str, str]:
    """What kind of charge it is, and how often it comes. A fee is for the seconds that a subscription ran: a
    purchase would be of something to come, whose effective cost is 0."""
    if cells["kind"] == "fee":
        return "Usage", "Recurring"
    if cells["meter"]:
        return "Usage", "Usage-Based"
    return "Credit", "One-Time"


def _description(cells: Cells) -> str:
    """The line in a few words."""
    if cells["kind"] == "fee":
        return "Monthly fee"
    about = f"{cells['meter']}" if cells["meter"] else "Credit"
    if cells["resource"]:
        about += f", {cells['resource']}"
    if cells["tier"]:
        about += f", tier {cells['tier']}"
    if cells["environment"] == "test":
        about += ", test"
    return f"Correction of {cells['original_period']}: {about}" if cells["original_period"] else about


@lru_cache(maxsize=100)
def _bounds(month: str) -> tuple[str, str]:
    """Where a month begins and, not included, ends."""
    period = Period.parse(month)
    return f"{period.start:%Y-%m-%dT%H:%M:%SZ}", f"{period.end:%Y-%m-%dT%H:%M:%SZ}"


def _cell(value: str | int | None, kind: str) -> str:
    """A real null is an empty cell; a number always has decimals, or readers take its column for integers."""
    if value is None or value == "":
        return ""
    text = str(value)
    if kind != DECIMAL:
        return guarded(text)
    return text if "." in text else f"{text}.0"


def _definition(name: str, kind: str) -> dict[str, str | int]:
    """A column in the metadata."""
    if kind == STRING:
        return {"ColumnName": name, "DataType": kind, "StringMaxLength": 300, "StringEncoding": "UTF-8"}
    if kind == DECIMAL:
        return {"ColumnName": name, "DataType": kind, "NumericPrecision": 38, "NumberScale": 12}
    return {"ColumnName": name, "DataType": kind}
