"""Golden months: what is sold, used and billed in tables that were written by hand from the rules, and the
exported bytes must be theirs. `golden/README.md` says how to read and write one."""

import csv
import datetime as dt
import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from keys import lifecycle
from keys.lifecycle.organizations import standard_policy
from keys.models import Key, Organization
from tests import builders
from usage import check_statement, meters
from usage.billing import Line, Period, closing, credits, money, plans, price_text, statement
from usage.exports import FORMATS
from usage.models import PlanVersion

MONTHS = sorted((Path(__file__).parent / "golden").glob("*.txt"))

type Row = dict[str, str]


def sections(text: str) -> Iterator[tuple[str, str, list[Row]]]:
    """(what, argument, rows) of each table, in order."""
    for part in text.split("\n== ")[1:]:
        title, _, body = part.partition(" ==\n")
        what, _, argument = title.partition(" ")
        lines = [line for line in body.splitlines() if line.strip() and not line.startswith("#")]
        cells = [[cell.strip() for cell in line.split("|")] for line in lines]
        yield what, argument, [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


class World:
    """The customers, plans and keys of one file, made as its tables name them."""

    def __init__(self) -> None:
        self.organizations: dict[str, Organization] = {}
        self.versions: dict[str, PlanVersion] = {}
        self.keys: dict[str, Key] = {}

    def organization(self, slug: str) -> Organization:
        if slug not in self.organizations:
            self.organizations[slug] = builders.organization(slug)
        return self.organizations[slug]

    def key(self, organization: str, public_id: str) -> Key:
        if public_id not in self.keys:
            environment = "test" if public_id.endswith("test") else "live"
            key = builders.key(self.organization(organization), name=public_id, environment=environment).key
            Key.objects.filter(pk=key.pk).update(public_id=public_id)
            self.keys[public_id] = key
        return self.keys[public_id]

    def meters(self, row: Row) -> None:
        builders.meter(row["meter"], unit=row["unit"], decimals=int(row["decimals"]))

    def plans(self, row: Row) -> None:
        actor, now, known = lifecycle.command_actor(), builders.NOW, meters.read()
        plan = plans.create_plan(
            actor, slug=row["plan"], name=row["plan"].title(), policy=standard_policy(), now=now
        )
        prices = [price_text.parse(line.strip(), known) for line in row["prices"].split(";")]
        fee = money.in_minor(row["fee"], row["currency"])
        draft = plans.draft_version(actor, plan, currency=row["currency"], fee=fee, prices=prices, now=now)
        self.versions[row["plan"]] = plans.publish(actor, draft, now=now)

    def subscriptions(self, row: Row) -> None:
        builders.subscription(
            self.organization(row["organization"]),
            self.versions[row["plan"]],
            hour(row["from"]),
            hour(row["to"]) if row["to"] else None,
        )

    def usage(self, row: Row) -> None:
        meter = meters.read()[row["meter"]]
        builders.used(
            self.key(row["organization"], row["key"]),
            meter.smallest(Decimal(row["quantity"])),
            hour(row["hour"]),
            meter=row["meter"],
            resource=row.get("resource", ""),
            booked=Period.parse(row["booked"]).first_day if row.get("booked") else None,
        )

    def credits(self, row: Row) -> None:
        credits.give(
            lifecycle.command_actor(),
            self.organization(row["organization"]),
            original=Period.parse(row["for"]),
            amount=money.in_minor(row["amount"], row["currency"]),
            currency=row["currency"],
            reason="Golden",
            now=builders.NOW,
        )


def hour(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(f"{text}+00:00")


def exported(period: Period) -> str:
    return b"".join(FORMATS["csv"](statement.lines_of(period))).decode()


def written(period: Period, rows: list[Row]) -> str:
    """The export's text of the rows, whose other columns are the same in every file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, Line._fields, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        names: dict[str, Any] = {
            "period": period,
            "organization_name": row["organization"].title(),
            "key_name": row.get("key", ""),
        }
        writer.writerow(names | row)
    return text.getvalue()


@pytest.mark.parametrize("file", MONTHS, ids=lambda file: file.stem)
def test_a_golden_month_is_exported_as_it_was_written_by_hand(
    db: None, settings: Settings, file: Path, tmp_path: Path
) -> None:
    settings.BILLING_GRACE_HOURS = 0
    world = World()
    for what, argument, rows in sections(file.read_text()):
        match what:
            case "statement":
                period = Period.parse(argument)
                assert exported(period) == written(period, rows)
                (tmp_path / "statement.csv").write_text(exported(period), newline="")
                assert check_statement.main([str(tmp_path / "statement.csv")]) == 0
            case "close":
                period = Period.parse(argument)
                before = exported(period)
                closing.close(period, lifecycle.command_actor(), now=period.end)
                assert exported(period) == before
            case _:
                for row in rows:
                    getattr(world, what)(row)


def test_the_golden_months_are_there() -> None:
    assert len(MONTHS) >= 13
