"""The formats for other systems: what each has of a statement, whom it leaves out, and stable ids."""

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from keys.models import Key
from tests import builders
from tests.usage.exported import IDS, MAY, addressed, export, rows, used
from tests.usage.test_export import LINE
from usage.billing import Line
from usage.exports import ADDRESSED_BY, FORMATS, focus, openmeter, stripe
from usage.exports.cells import of_lines
from usage.exports.events import Event, of_cells
from usage.meters import Meter

LAST_SECOND = 1_780_271_999  # 2026-05-31 23:59:59 UTC


@pytest.fixture
def key(db: None) -> Key:
    return builders.key(builders.organization("acme")).key


@pytest.fixture
def known(key: Key) -> Key:
    """A key whose organization every billing system knows."""
    addressed(key.organization)
    return key


def jsonl(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def events_of(lines: list[Line], meter: Meter) -> Iterator[Event]:
    return of_cells(of_lines(lines, {meter.name: meter}))


def events(format_name: str, text: str) -> list[tuple[str, str, str, str]]:
    """Id, customer, meter and value of each record, whatever the system."""
    match format_name:
        case "stripe":
            return [
                (
                    e["identifier"],
                    e["payload"]["stripe_customer_id"],
                    e["event_name"],
                    e["payload"]["value"],
                )
                for e in jsonl(text)
            ]
        case "openmeter":
            return [
                (e["id"], e["subject"], e["type"], e["data"]["value"]) for batch in jsonl(text) for e in batch
            ]
    return [
        (e["transaction_id"], e["external_subscription_id"], e["code"], e["properties"]["value"])
        for batch in jsonl(text)
        for e in batch["events"]
    ]


# --- each system's record -------------------------------------------------------------------------


def test_a_stripe_record_is_a_meter_event(known: Key, journal_dir: Path) -> None:
    used(known, 5, resource="/tiles")

    [event] = jsonl(export("--format", "stripe"))
    assert event == {
        "event_name": "requests",
        "identifier": event["identifier"],
        "timestamp": LAST_SECOND,
        "payload": {"stripe_customer_id": "cus_1", "value": "5"},
    }


def test_an_openmeter_record_is_a_cloudevent(
    known: Key, journal_dir: Path, settings: Any
) -> None:  # Any: pytest-django's wrapper has no attributes of its own
    used(known, 5, resource="/tiles")

    [[event]] = jsonl(export("--format", "openmeter"))
    assert event == {
        "specversion": "1.0",
        "id": event["id"],
        "source": settings.PORTAL_URL,
        "type": "requests",
        "subject": "acme-1",
        "time": "2026-05-31T23:59:59Z",
        "datacontenttype": "application/json",
        "data": {"value": "5", "key": known.public_id, "resource": "/tiles"},
    }


def test_a_lago_record_is_an_event_of_a_batch(known: Key, journal_dir: Path) -> None:
    used(known, 5, resource="/tiles")

    [batch] = jsonl(export("--format", "lago"))
    [event] = batch["events"]
    assert event == {
        "transaction_id": event["transaction_id"],
        "external_subscription_id": "sub_1",
        "code": "requests",
        "timestamp": LAST_SECOND,
        "properties": {"value": "5", "key": known.public_id, "resource": "/tiles"},
    }


def test_lago_gets_at_most_a_hundred_events_at_once(known: Key, journal_dir: Path) -> None:
    for number in range(205):
        used(known, resource=f"/{number}")

    batches = jsonl(export("--format", "lago"))
    assert [len(batch["events"]) for batch in batches] == [100, 100, 5]


def test_openmeter_gets_at_most_five_hundred_events_at_once() -> None:
    for many, sizes in ((500, [500]), (501, [500, 1]), (1000, [500, 500])):
        lines = [LINE._replace(resource=f"/{n}", quantity=1, external_customer="a") for n in range(many)]
        batches = jsonl(b"".join(openmeter.render(events_of(lines, Meter("m", "m", "M")))).decode())
        assert [len(batch) for batch in batches] == sizes


# --- what becomes a record ------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", ADDRESSED_BY)
def test_only_live_quantities_become_records_in_units_and_in_full(
    known: Key, journal_dir: Path, format_name: str
) -> None:
    builders.meter("hours", unit="hour", decimals=3)
    hours = {"stripe": (2_000, "2")}.get(format_name, (1_500, "1.500"))
    version = builders.version("basic", fee=3100, requests={"unit_price": "0.01", "included": 3})
    builders.subscription(known.organization, version, MAY.start)
    used(known, 5)
    used(known, hours[0], meter="hours")
    used(builders.key(known.organization, environment="test").key, 7)

    customer = IDS[ADDRESSED_BY[format_name]]
    records = events(format_name, export("--format", format_name))
    assert {record[1:] for record in records} == {
        (customer, "requests", "5"),
        (customer, "hours", hours[1]),
    }


@pytest.mark.parametrize("format_name", ADDRESSED_BY)
def test_the_records_of_a_graduated_price_add_up_to_what_was_used(
    known: Key, journal_dir: Path, format_name: str
) -> None:
    tiers = [{"up_to": 10, "unit_price": "0.02"}, {"up_to": None, "unit_price": "0.01"}]
    version = builders.version("basic", requests={"model": "graduated", "tiers": tiers, "included": 5})
    builders.subscription(known.organization, version, MAY.start)
    used(known, 40)
    used(builders.key(known.organization).key, 2)

    records = events(format_name, export("--format", format_name))
    assert sum(int(value) for *_, value in records) == 42


@pytest.mark.parametrize("format_name", ADDRESSED_BY)
def test_ids_are_unique_short_and_the_same_though_numbers_change(
    known: Key, journal_dir: Path, format_name: str
) -> None:
    middle = MAY.start + dt.timedelta(days=14)
    version = builders.version("basic", requests={"unit_price": "0.01"})
    builders.subscription(known.organization, version, MAY.start, middle)
    builders.subscription(known.organization, version, middle)
    for hour in (MAY.start, middle):
        used(known, 5, hour=hour)
        used(known, 5, hour=hour, meter="tokens")
    used(known, 5, hour=MAY.end)

    first = [record[0] for record in events(format_name, export("--format", format_name))]
    used(known, 1, hour=MAY.end - dt.timedelta(hours=1))
    second = [record[0] for record in events(format_name, export("--format", format_name))]
    june = [record[0] for record in events(format_name, export("--format", format_name, period="2026-06"))]
    assert sorted(first) == sorted(second)
    assert len({*first, *june}) == 5
    assert all(len(each) <= 100 and each.isascii() for each in first)


# --- organizations that the system does not know --------------------------------------------------


@pytest.mark.parametrize("format_name", ADDRESSED_BY)
def test_an_organization_without_the_systems_id_is_named_and_nothing_is_written(
    known: Key, journal_dir: Path, tmp_path: Path, format_name: str
) -> None:
    used(known, 5)
    used(builders.key(builders.organization("globex")).key, 7)
    used(builders.key(builders.organization("initech"), environment="test").key, 7)
    path = tmp_path / "may"

    for output in (str(path), "-"):
        out, err = io.StringIO(), io.StringIO()
        with pytest.raises(Exception, match="--skip-missing") as caught:
            call_command(
                *("export_billing", "--period", "2026-05", "--allow-open", "--format", format_name),
                *("--output", output),
                stdout=out,
                stderr=err,
            )
        assert getattr(caught.value, "returncode", None) == 1
        assert [line.split(" ")[0] for line in err.getvalue().splitlines()] == ["globex"]
        assert out.getvalue() == ""
    assert [each for each in tmp_path.iterdir() if each.is_file()] == []


@pytest.mark.parametrize("format_name", ADDRESSED_BY)
def test_with_skip_missing_it_is_left_out_of_the_file_and_its_manifest(
    known: Key, journal_dir: Path, tmp_path: Path, format_name: str
) -> None:
    used(known, 5)
    used(builders.key(builders.organization("globex")).key, 7)
    path = tmp_path / "may"

    export("--format", format_name, "--skip-missing", "--output", str(path))

    assert [record[3] for record in events(format_name, path.read_text())] == ["5"]
    manifest = json.loads((tmp_path / "may.manifest.json").read_text())
    assert (manifest["lines"], manifest["quantity_by_meter"]) == (1, {"requests": 5})


def test_what_stripe_would_not_take_is_named_line_by_line_and_nothing_is_written(
    known: Key, journal_dir: Path
) -> None:
    builders.meter("hours", unit="hour", decimals=3)
    used(known, 1_500, meter="hours")
    used(known, 10**15, meter="tokens")
    used(known, 10**15 - 1, meter="bytes")

    out, err = io.StringIO(), io.StringIO()
    argv = ("export_billing", "--period", "2026-05", "--allow-open", "--format", "stripe")
    with pytest.raises(Exception, match="--skip-missing"):
        call_command(*argv, stdout=out, stderr=err)
    assert out.getvalue() == ""
    assert err.getvalue().splitlines() == [
        f"acme {known.public_id} live {meter} usage: {value} is not a whole number of at most 15 digits."
        for meter, value in (("hours", "1.500"), ("tokens", "1000000000000000"))
    ]
    call_command(*argv, "--skip-missing", stdout=out, stderr=err)
    assert [event["payload"]["value"] for event in jsonl(out.getvalue())] == ["999999999999999"]


@given(quantity=st.integers(-(10**18), 10**18).filter(bool), decimals=st.integers(0, 6))
def test_every_value_is_sent_to_stripe_exactly_or_not_at_all(quantity: int, decimals: int) -> None:
    value = Decimal(quantity).scaleb(-decimals)
    text = f"{value:f}"
    whole = value == value.to_integral_value() and abs(value) < 10**15
    assert stripe.takes(text) == whole
    if whole:
        meter = Meter("m", "m", "M", decimals=decimals)
        line = LINE._replace(quantity=quantity, external_customer="cus_1")
        [event] = jsonl(b"".join(stripe.render(events_of([line], meter))).decode())
        assert Decimal(event["payload"]["value"]) == value
        assert event["payload"]["value"].removeprefix("-").isdigit()


def test_of_very_many_values_that_stripe_would_not_take_the_first_are_named(
    known: Key, journal_dir: Path
) -> None:
    for number in range(25):
        used(known, 10**15, resource=f"/{number:02}")
    err = io.StringIO()
    call_command(
        *("export_billing", "--period", "2026-05", "--allow-open", "--format", "stripe", "--skip-missing"),
        stdout=io.StringIO(),
        stderr=err,
    )
    said = err.getvalue().splitlines()
    assert (len(said), said[-1]) == (21, "5 more lines: the same; it is left out.")


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_empty_month_is_a_valid_file(db: None, journal_dir: Path, format_name: str) -> None:
    text = export("--format", format_name)
    match format_name:
        case "csv" | "focus":
            assert rows(text) == []
            assert len(text.splitlines()) == 1
        case "openmeter":
            assert text == "[]\n"
        case _:
            assert text == ""


# --- FOCUS ----------------------------------------------------------------------------------------


def test_focus_has_a_row_a_line_with_costs_that_add_up(
    key: Key, journal_dir: Path, settings: Any
) -> None:  # Any: as above
    settings.PORTAL_NAME = "Example"
    version = builders.version("basic", fee=3100, requests={"unit_price": "0.01", "included": 3})
    builders.subscription(key.organization, version, MAY.start)
    used(key, 5)

    fee, usage = rows(export("--format", "focus"))
    assert list(fee) == list(focus.COLUMNS)
    assert (fee["ChargeCategory"], fee["ChargeFrequency"]) == ("Usage", "Recurring")
    assert (fee["BilledCost"], fee["PricingQuantity"], fee["PricingUnit"]) == (
        "31.00",
        "2678400.0",
        "Seconds",
    )
    assert (fee["ConsumedQuantity"], fee["x_Key"]) == ("2678400.0", "")
    assert usage == dict.fromkeys(focus.COLUMNS, "") | {
        **dict.fromkeys(["BilledCost", "ContractedCost", "EffectiveCost", "ListCost"], "0.02"),
        "BillingAccountId": "acme",
        "BillingAccountName": "Acme",
        "BillingCurrency": "USD",
        **dict.fromkeys(["BillingPeriodStart", "ChargePeriodStart"], "2026-05-01T00:00:00Z"),
        **dict.fromkeys(["BillingPeriodEnd", "ChargePeriodEnd"], "2026-06-01T00:00:00Z"),
        "ChargeCategory": "Usage",
        "ChargeDescription": "requests",
        "ChargeFrequency": "Usage-Based",
        **dict.fromkeys(["ConsumedUnit", "PricingUnit"], "request"),
        "ConsumedQuantity": "5.0",
        "PricingQuantity": "2.0",
        **dict.fromkeys(["InvoiceIssuerName", "ProviderName", "PublisherName"], "Example"),
        "ServiceCategory": "Integration",
        "ServiceName": "Example API",
        "ServiceSubcategory": "API Management",
        "x_Environment": "live",
        "x_Included": "3.0",
        "x_Key": key.public_id,
        "x_KeyName": "Backend",
        "x_Kind": "usage",
        "x_Meter": "requests",
        "x_UnitPrice": "0.01",
    }


def test_focus_guards_texts_and_never_a_number() -> None:
    line = LINE._replace(
        organization_name="=1+1", quantity=1, billable=1, amount="-0.05", currency="USD", kind="correction"
    )
    [row] = csv.DictReader(io.StringIO(b"".join(focus.render(of_lines([line], {}))).decode()))
    assert (row["BillingAccountName"], row["BilledCost"]) == ("'=1+1", "-0.05")


@pytest.mark.parametrize("price", [None, {"unit_price": "0.5"}])
def test_what_costs_nothing_in_no_currency_is_a_row_too(
    key: Key, journal_dir: Path, price: dict[str, str] | None
) -> None:
    other = builders.organization("globex")
    if price:
        builders.subscription(other, builders.version("basic", requests=price), MAY.start)
    used(key, 5)

    [row] = rows(export("--format", "focus"))
    # FOCUS wants a currency in every row; ISO 4217 has XXX for "none is involved".
    assert (row["BilledCost"], row["BillingCurrency"]) == ("0.0", "XXX")


def test_focus_names_its_columns_in_a_metadata_file_beside_it(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    used(key, 5)
    path = tmp_path / "may.csv"

    export("--format", "focus", "--output", str(path))

    assert {each.name for each in tmp_path.iterdir() if each.is_file()} == {
        "may.csv",
        "may.csv.manifest.json",
        "may.csv.metadata.json",
    }
    schema = json.loads((tmp_path / "may.csv.metadata.json").read_text())["Schema"]
    header = path.read_text().splitlines()[0]
    assert schema["FocusVersion"] == "1.2"
    assert ",".join(column["ColumnName"] for column in schema["ColumnDefinition"]) == header


def test_the_costs_of_focus_are_the_amounts_of_the_csv(key: Key, journal_dir: Path) -> None:
    version = builders.version("basic", fee=3100, requests={"unit_price": "0.333"})
    builders.subscription(key.organization, version, MAY.start + dt.timedelta(days=14))
    for number in range(3):
        used(builders.key(key.organization).key, 7 + number, hour=MAY.end - dt.timedelta(hours=1))

    from_csv = [Decimal(row["amount"]) for row in rows(export())]
    from_focus = [Decimal(row["BilledCost"]) for row in rows(export("--format", "focus"))]
    assert from_focus == from_csv
