"""Check a billing statement without the portal that wrote it: `python3 check_statement.py FILE.csv …`.

It reads the CSV and, where there is one, `FILE.csv.manifest.json`, computes every amount anew, adds all of
them up, and names each difference. What a correction should be depends on the month that it corrects: give
that month's file too, and those since. It needs Python 3.10 and nothing else, asks nobody, and changes
nothing.
"""

from __future__ import annotations

import argparse
import calendar
import csv
import datetime as dt
import hashlib
import io
import json
import math
import re
import sys
from collections import Counter, defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = [
    *("period", "organization", "organization_name", "external_customer", "key", "key_name", "environment"),
    *("meter", "resource", "unit", "tier", "quantity", "included", "billable", "unit_price", "amount"),
    *("currency", "kind", "original_period"),
]
NUMBERS = ("quantity", "included", "billable", "unit_price", "amount")
KINDS = ("usage", "fee", "correction")
SHOWN = 20  # differences of one file; the rest is counted
_NUMBER = re.compile(r"-?[0-9]{1,60}(\.[0-9]{1,30})?", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,19}(\.[0-9]{1,6})?", re.ASCII)  # of a package, in units
_MONTH = re.compile(r"[1-9][0-9]{3}-(0[1-9]|1[0-2])", re.ASCII)

Row = dict[str, str]


class Unreadable(Exception):
    """A file that is no statement, and why, in a sentence."""


class Price(NamedTuple):
    """What was rated as one: an organization's usage of a month under one price and tier."""

    period: str
    organization: str
    meter: str
    resource: str
    tier: str
    unit_price: str
    currency: str

    def __str__(self) -> str:
        about = f"{self.organization}, {self.period}, {self.meter}"
        if self.resource:
            about += f" ({self.resource})"
        return f"{about}, tier {self.tier}" if self.tier else about


class Statement:
    """One file: its rows, what its manifest says, and the differences found so far."""

    def __init__(self, path: Path, packages: dict[str, Fraction]) -> None:
        self.path = path
        self.packages = packages
        self.differences: list[str] = []
        self.notes: list[str] = []
        self.good: list[Row] = []  # all rows, if each can be computed with
        content = _bytes(path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.rows = _rows(path, content)
        self.manifest = _manifest(path)

    def differs(self, sentence: str) -> None:
        self.differences.append(sentence)

    def check(self) -> None:
        good = [row for number, row in enumerate(self.rows, 2) if self._check_row(number, row)]
        if len(good) == len(self.rows):
            self.good = good
            self._check_prices(good)
            self._check_manifest(good)

    # --- one line ---------------------------------------------------------------------------------

    def _check_row(self, number: int, row: Row) -> bool:
        """Whether the row can be computed with; its own sums are checked on the way."""
        before = len(self.differences)
        where = f"Line {number}"
        for name in NUMBERS:
            if row[name] and not _NUMBER.fullmatch(row[name]):
                self.differs(f"{where}: {name} is not a plain number.")
        if row["kind"] not in KINDS:
            self.differs(f"{where}: the kind is not usage, fee or correction.")
        for name in ("period", "original_period"):
            if (row[name] or name == "period") and not _MONTH.fullmatch(row[name]):
                self.differs(f"{where}: {name} is not a month.")
        if not row["quantity"] or not row["billable"]:
            self.differs(f"{where}: quantity or billable is empty.")
        if len(self.differences) > before:
            return False
        self._check_quantities(where, row)
        if row["kind"] == "fee":
            self._check_fee(where, row)
        return True

    def _check_quantities(self, where: str, row: Row) -> None:
        quantity, billable = Fraction(row["quantity"]), Fraction(row["billable"])
        included = Fraction(row["included"] or 0)
        if row["environment"] == "test":
            if included or billable or Fraction(row["amount"] or 0):
                self.differs(f"{where}: a test key's usage is billed, or uses up what is included.")
        elif quantity != included + billable:
            self.differs(f"{where}: quantity is not what is included and what is billable together.")
        if row["kind"] == "correction" and not row["original_period"]:
            self.differs(f"{where}: a correction names no original period.")
        if row["kind"] == "usage" and min(quantity, included, billable) < 0:
            self.differs(f"{where}: a quantity is below 0.")

    def _check_fee(self, where: str, row: Row) -> None:
        if not row["unit_price"] or not row["amount"] or row["unit"] != "s" or row["key"]:
            self.differs(f"{where}: a fee has seconds, a monthly fee, an amount, and no key.")
            return
        seconds, whole = Fraction(row["quantity"]), _seconds(row["period"])
        if not 0 < seconds <= whole:
            self.differs(f"{where}: the month has {whole} seconds.")
        cent = _cent(row)
        expected = _rounded(Fraction(row["unit_price"]) * seconds / whole, cent)
        if Fraction(row["amount"]) != expected:
            self.differs(
                f"{where}: the fee is {row['amount']}, but {row['unit_price']} × {seconds}/{whole} is "
                f"{_text(expected)}."
            )

    # --- lines that share a price -----------------------------------------------------------------

    def _check_prices(self, rows: list[Row]) -> None:
        fees: dict[tuple[str, str], list[Fraction]] = defaultdict(list)
        for row in rows:
            if row["kind"] == "fee":
                fees[row["period"], row["organization"]].append(Fraction(row["quantity"]))
        decimals: dict[str, int] = {}
        groups: dict[Price, list[Row]] = defaultdict(list)
        for row in rows:
            if row["amount"] and row["currency"]:
                places = len(row["amount"].partition(".")[2])
                if decimals.setdefault(row["currency"], places) != places:
                    self.differs(f"Amounts in {row['currency']} have different numbers of decimals.")
            if row["kind"] == "usage" and _is_priced(row):
                groups[Price._make(row[name] for name in Price._fields)].append(row)
        # What each key used under a price, all tiers together.
        weights: dict[tuple[str, ...], dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
        currencies = {
            (row["period"], row["organization"], row["currency"])
            for row in rows
            if row["kind"] != "correction"
        }
        for (period, organization), number in Counter(each[:2] for each in currencies).items():
            if number > 1:
                self.differs(f"{organization}, {period}: there are lines in {number} currencies.")
        for price, shares in groups.items():
            for row in shares:
                weights[price[:4]][row["key"]] += Fraction(row["quantity"])
        for price, shares in groups.items():
            seconds = fees[price.period, price.organization]
            # Where their fees are not for the whole month, there may be plans besides that have none.
            plans = len(seconds) if sum(seconds) == _seconds(price.period) else 0
            self._check_price(price, shares, plans, weights[price[:4]])
        credits = sum(row["kind"] == "correction" and not row["meter"] for row in rows)
        if credits:
            self.notes.append(f"{credits} credits are what somebody decided; they were only added up.")

    def _check_price(self, price: Price, rows: list[Row], plans: int, weights: dict[str, Fraction]) -> None:
        """The keys' amounts add up to the price's, which is rounded once for each subscription, and each has
        its share of it by what it used (`weights`), to less than a cent. `plans` is how many subscriptions
        there were, 0 where nothing says it."""
        # At most one for each line, of which a key has one under each subscription.
        roundings = max(plans or len(rows), *Counter(row["key"] for row in rows).values())
        difference, note = _judged(price, rows, roundings, self.packages)
        self.differences += difference
        self.notes += note
        if not difference and plans == 1:
            self.differences += _unfair(str(price), rows, weights)

    # --- the whole file ---------------------------------------------------------------------------

    def _check_manifest(self, rows: list[Row]) -> None:
        if self.manifest is None:
            self.notes.append(f"There is no manifest beside it. SHA-256: {self.sha256}")
            return
        said = self.manifest
        if said.get("sha256") != self.sha256:
            self.differs("The SHA-256 of the file is not the manifest's: one of them was changed.")
        if said.get("lines") != len(rows):
            self.differs(f"The manifest has {said.get('lines')!s:.40} lines, the file {len(rows)}.")
        quantities: dict[str, Fraction] = defaultdict(Fraction)
        amounts: dict[str, Fraction] = defaultdict(Fraction)
        for row in rows:
            if row["meter"]:
                quantities[row["meter"]] += Fraction(row["quantity"])
            if row["currency"] and row["amount"]:
                amounts[row["currency"]] += Fraction(row["amount"])
        self._compare("quantity_by_meter", quantities)
        self._compare("amount_by_currency", amounts)
        months = [month.get("period") for month in _months(said)]
        if {row["period"] for row in rows} - set(months):
            self.differs("The file has lines of a month that the manifest does not name.")
        if any(month.get("status") != "closed" for month in _months(said)):
            self.notes.append("The month was open: its numbers may still have changed.")
        for month in _months(said):
            for host in month.get("retired_hosts") or []:
                self.notes.append(f"Calls of a host that was given up may be missing: {host!s:.200}")

    def _compare(self, name: str, computed: dict[str, Fraction]) -> None:
        said = self.manifest.get(name) if self.manifest else None
        if not isinstance(said, dict):
            self.differs(f"The manifest has no {name}.")
            return
        for each in sorted({*said, *computed}):
            found, total = str(said.get(each, 0)), computed.get(each, Fraction(0))
            if not _NUMBER.fullmatch(found) or Fraction(found) != total:
                self.differs(
                    f"{name} of {each:.60}: {found:.60} in the manifest, {_text(total)} in the file."
                )


def _judged(
    price: Price, rows: list[Row], roundings: int, packages: dict[str, Fraction]
) -> tuple[list[str], list[str]]:
    """Whether what these rows are billed under one price is what it comes to: a difference, or else a note
    where only the size of a package would tell."""
    unit_price, cent = Fraction(price.unit_price or 0), _cent(rows[0])
    billable, amount = _sum(rows, "billable"), _sum(rows, "amount")
    name = price.meter + (f"/{price.resource}" if price.resource else "")
    size = None if price.tier else packages.get(name)  # what has tiers is sold by the unit
    exact, slack = unit_price * billable, roundings * cent / 2
    if size is not None:
        # Each subscription has begun packages of its own.
        begun = [math.ceil(billable / size) + more for more in range(roundings)]
        exact = min((unit_price * many for many in begun), key=lambda each: abs(amount - each))
    if amount == _rounded(exact, cent) or (roundings > 1 and abs(amount - exact) <= slack):
        return [], []
    sold = round(amount / unit_price) if unit_price and not price.tier else 0
    is_sold = abs(amount - sold * unit_price) <= (slack if unit_price >= cent else 0)
    if size is None and is_sold and 0 < sold <= math.ceil(billable / _least(rows)):
        text = f"{sold} packages at {price.unit_price} each; give the size of one with --package {name}=SIZE"
        return [], [f"{price}: {text} to have it checked."]
    return [
        f"{price}: the amounts add up to {_text(amount)}, but {_text(billable)} at {price.unit_price} are "
        f"{_text(_rounded(exact, cent))}."
    ], []


def _unfair(about: str, rows: list[Row], weights: dict[str, Fraction]) -> list[str]:
    """Rows that do not have their key's share of what all are billed together, to less than a cent."""
    amount, whole = _sum(rows, "amount"), sum(weights.values(), Fraction(0))
    if not whole or min(weights.values()) < 0:
        return []
    return [
        f"{about}: {row['key']} does not have its share of {_text(amount)}."
        for row in rows
        if abs(Fraction(row["amount"]) - amount * weights[row["key"]] / whole) >= _cent(row)
    ]


class Corrected(NamedTuple):
    """What is rated again as one: an organization's late usage of a month under one price."""

    organization: str
    original: str
    meter: str
    resource: str

    def __str__(self) -> str:
        about = f"{self.organization}, corrections of {self.original}, {self.meter}"
        return f"{about} ({self.resource})" if self.resource else about


def check_corrections(statements: list[Statement]) -> tuple[list[str], list[str]]:
    """Differences and notes: with its corrections, a month costs what it would have cost had everything come
    in time. Where that cannot be computed, a note says why."""
    months: dict[str, list[Row]] = {}
    for statement in statements:
        own = {str(month.get("period")): list[Row]() for month in _months(statement.manifest or {})}
        for row in statement.good:
            own.setdefault(row["period"], []).append(row)
        months = own | months
    late: dict[Corrected, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for month in sorted(months):
        for row in months[month]:
            if row["kind"] == "correction" and row["meter"] and _is_priced(row):
                names = (row["organization"], row["original_period"], row["meter"], row["resource"])
                late[Corrected(*names)][month].append(row)
    packages = statements[0].packages if statements else {}
    differences, notes = [], []
    for corrected, by_month in late.items():
        for rows in by_month.values():
            weights: dict[str, Fraction] = defaultdict(Fraction)
            for row in rows:
                weights[row["key"]] += Fraction(row["quantity"])
            differences += _unfair(str(corrected), rows, weights)
        difference, note = _rated_again(corrected, by_month, months, packages)
        differences += difference
        notes += note
    return differences, notes


def _rated_again(
    corrected: Corrected,
    late: dict[str, list[Row]],
    months: dict[str, list[Row]],
    packages: dict[str, Fraction],
) -> tuple[list[str], list[str]]:
    """The same of one month's corrections, `late` by the month that carries them."""
    month = last = max(late)
    while month > corrected.original and month in months:
        month = _before(month)
    if month != corrected.original or month not in months:
        text = f"only added up; with the files of {corrected.original} to {last} they can be computed"
        return [], [f"{corrected}: {text}."]
    price, first = _one_price(corrected, months[month])
    if price is None:
        return [], [f"{corrected}: only added up; {month} does not say at which price."]
    billed = list(first)
    for each in sorted(late):
        billed += late[each]
        difference, note = _judged(price, billed, 1, packages)
        more = _sum(billed, "included") - _sum(first, "included")
        if _sum(first, "billable") and (more > 0 or (more and _sum(billed, "billable") > 0)):
            difference.append(f"{corrected}: another quantity is included than in {month}.")
        if difference or note:
            return [f"With the corrections until {each}: {text}" for text in difference], note
    return [], []


def _one_price(corrected: Corrected, month: list[Row]) -> tuple[Price | None, list[Row]]:
    """What the month itself billed of it, and at which price: None unless one plan ran all month, and the
    price has no tiers."""
    own = [row for row in month if row["organization"] == corrected.organization]
    fees = [Fraction(row["quantity"]) for row in own if row["kind"] == "fee"]
    about = (corrected.meter, corrected.resource)
    rows = [row for row in own if row["kind"] == "usage" and (row["meter"], row["resource"]) == about]
    rows = [row for row in rows if _is_priced(row)]
    prices = {Price._make(row[name] for name in Price._fields) for row in rows}
    if len(prices) != 1 or fees != [_seconds(corrected.original)]:
        return None, rows
    price = prices.pop()
    return (None if price.tier else price), rows


def check_chain(statements: list[Statement]) -> list[str]:
    """Differences between the statements of months that follow each other: each names the hash of the whole
    one before it, of which an organization's own file is a part."""
    found: dict[str, dict[str, Any]] = {}
    for statement in statements:
        said = statement.manifest
        if said is not None and _is_month(said.get("period")):
            found[str(said["period"])] = said
    differences = []
    for month, said in sorted(found.items()):
        before = found.get(_before(month))
        whole = None if before is None else before.get("statement_sha256", before.get("sha256"))
        if None not in (whole, said.get("previous_sha256")) and said["previous_sha256"] != whole:
            differences.append(f"{month} follows another {_before(month)} than this one.")
    return differences


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} could not be read: {error.strerror or error}.") from None
    except ValueError:
        raise Unreadable("This is not the name of a file.") from None


def _rows(path: Path, content: bytes) -> list[Row]:
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
        header = next(reader, [])
        if header != COLUMNS:
            raise Unreadable(f"{path} is not a statement: its first line is not the columns of one.")
        found = []
        for number, cells in enumerate(reader, 2):
            if len(cells) != len(COLUMNS):
                raise Unreadable(f"{path}: line {number} has {len(cells)} cells, not {len(COLUMNS)}.")
            found.append(dict(zip(COLUMNS, cells, strict=True)))
    except UnicodeDecodeError:
        raise Unreadable(f"{path} is not text in UTF-8.") from None
    except csv.Error as error:
        raise Unreadable(f"{path} is not CSV: {error}.") from None
    return found


def _manifest(path: Path) -> dict[str, Any] | None:
    beside = path.with_name(f"{path.name}.manifest.json")
    if not beside.exists():
        return None
    try:
        said = json.loads(_bytes(beside).decode("utf-8"))
    except (ValueError, RecursionError):
        raise Unreadable(f"{beside} is not JSON in UTF-8.") from None
    if not isinstance(said, dict):
        raise Unreadable(f"{beside} is not the manifest of a statement.")
    return said


def _months(said: dict[str, Any]) -> list[dict[str, Any]]:
    """What a manifest says of each month of its file."""
    several = said.get("periods")
    found = several if isinstance(several, list) else [said]
    return [each for each in found if isinstance(each, dict)]


def _is_month(value: object) -> bool:
    return isinstance(value, str) and _MONTH.fullmatch(value) is not None


def _before(month: str) -> str:
    return f"{dt.date.fromisoformat(f'{month}-01') - dt.timedelta(days=1):%Y-%m}"


def _seconds(month: str) -> int:
    """How many seconds a month has, in UTC."""
    return calendar.monthrange(int(month[:4]), int(month[5:]))[1] * 86400


def _decimal(value: Fraction) -> Decimal:
    """A fraction whose denominator divides a power of ten, as a decimal."""
    places = 0
    while value.denominator != 1 and places < 60:
        value, places = value * 10, places + 1
    return Decimal((int(value < 0), tuple(int(digit) for digit in str(abs(value.numerator))), -places))


def _sum(rows: list[Row], column: str) -> Fraction:
    return sum((Fraction(row[column] or 0) for row in rows), Fraction(0))


def _is_priced(row: Row) -> bool:
    return bool(row["amount"]) and row["environment"] != "test"


def _cent(row: Row) -> Fraction:
    """The smallest amount of the row's currency, by the decimals that its amount has."""
    return Fraction(1, 10 ** len(row["amount"].partition(".")[2]))


def _least(rows: list[Row]) -> Fraction:
    """The smallest quantity of the rows' meter, of which a package has at least one."""
    return Fraction(1, 10 ** max(len(row["billable"].partition(".")[2]) for row in rows))


def _rounded(exact: Fraction, cent: Fraction) -> Fraction:
    return round(exact / cent) * cent  # of a fraction, round() is half to even


def _text(value: Fraction) -> str:
    return f"{_decimal(value):f}"


def _package(text: str) -> tuple[str, Fraction]:
    name, _, size = text.rpartition("=")
    if not name or not _SIZE.fullmatch(size) or not Fraction(size):
        raise argparse.ArgumentTypeError("write it as requests=1000, hours=0.25 or tokens/large=1000")
    return name, Fraction(size)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(argv: list[str] | None = None) -> int:
    """Check the files; 0 if all is well, 1 with every difference, 2 if one cannot be read."""
    parser = argparse.ArgumentParser(description="Check billing statements and how they follow each other.")
    parser.add_argument("files", nargs="+", metavar="FILE.csv", type=Path)
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        type=_package,
        metavar="METER[/RESOURCE]=SIZE",
        dest="packages",
        help="units in a package, where the price is of one",
    )
    options = parser.parse_args(argv)
    statements, status = [], 0
    for path in options.files:
        try:
            statement = Statement(path, dict(options.packages))
        except Unreadable as error:
            sys.stderr.write(f"{error}\n")
            return 2
        statement.check()
        statements.append(statement)
        for sentence in statement.differences[:SHOWN]:
            _say(f"{path}: {sentence}")
        if len(statement.differences) > SHOWN:
            _say(f"{path}: and {len(statement.differences) - SHOWN} more differences.")
        for note in statement.notes[:SHOWN]:
            _say(f"{path}: note: {note}")
        if statement.differences:
            status = 1
        else:
            _say(f"{path}: {len(statement.rows)} lines, all as they should be.")
    corrected, notes = check_corrections(statements)
    for sentence in [*check_chain(statements), *corrected]:
        _say(sentence)
        status = 1
    for note in notes[:SHOWN]:
        _say(f"note: {note}")
    return status


if __name__ == "__main__":
    sys.exit(main())
