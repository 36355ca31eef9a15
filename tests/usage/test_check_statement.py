"""The script that customers check a statement with: run as they run it, on what the export writes."""

import csv
import hashlib
import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from keys import lifecycle
from keys.models import Key
from tests import builders
from tests.usage.exported import MAY, export
from usage import check_statement
from usage.billing import Line, Period, closing, lines
from usage.billing.statement import Totals, lines_of, manifest
from usage.exports import FORMATS
from usage.models import Price, Rollup

SCRIPT = django_settings.BASE_DIR / "usage" / "check_statement.py"
TIERS = [{"up_to": 10, "unit_price": "0.025"}, {"up_to": None, "unit_price": "0.0071"}]
GRADUATED = {"model": "graduated", "included": 7, "tiers": TIERS}


@pytest.fixture
def key(db: None) -> Key:
    return builders.key(builders.organization("acme")).key


@pytest.fixture
def statement(key: Key, journal_dir: Path, tmp_path: Path) -> Path:
    """A statement with a fee, three keys, tiers and test usage, and its manifest."""
    builders.meter("hours", unit="hour", decimals=3)
    version = builders.version("basic", fee=3100, requests=GRADUATED, hours={"unit_price": "0.333"})
    builders.subscription(key.organization, version, MAY.start.replace(day=15))
    for number in range(3):
        builders.used(builders.key(key.organization).key, 7 + 10 * number, MAY.start.replace(day=20 + number))
    builders.used(key, 1_234, MAY.start.replace(day=20), meter="hours")
    builders.used(builders.key(key.organization, environment="test").key, 99, MAY.start.replace(day=20))
    export("--output", str(tmp_path / "may.csv"))
    return tmp_path / "may.csv"


def checked(*files: Path | str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), *map(str, files)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ran.stderr
    return ran.returncode, ran.stdout + ran.stderr


def changed(file: Path, column: str, value: str, *, row: int = -1) -> None:
    """Write another value into a row of the file (the last), and have its manifest's SHA-256 agree."""
    found = list(csv.DictReader(io.StringIO(file.read_text(), newline="")))
    found[row][column] = value
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, Line._fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    file.write_text(text.getvalue())
    beside = Path(f"{file}.manifest.json")
    if beside.exists():
        said = json.loads(beside.read_text())
        said["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        beside.write_text(json.dumps(said))


def test_what_the_export_wrote_is_as_it_should_be(statement: Path) -> None:
    status, said = checked(statement)
    assert (status, "9 lines, all as they should be" in said) == (0, True), said


@pytest.mark.parametrize(
    ("column", "value", "row"),
    [
        ("amount", "15.99", 0),  # the fee
        ("amount", "0.42", 1),
        ("billable", "3.5", 1),
        ("included", "5000", 2),
        ("quantity", "100000", 3),
        ("currency", "EUR", 1),
        ("period", "2026-04", 1),
        ("kind", "gift", 1),
        ("amount", "1e9", 1),
        ("quantity", "", 1),
    ],
)
def test_what_was_changed_by_hand_is_named(statement: Path, column: str, value: str, row: int) -> None:
    changed(statement, column, value, row=row)

    assert check_statement.main([str(statement)]) == 1


def test_what_is_included_is_noticed_in_every_line(statement: Path) -> None:
    whole = statement.read_text()
    for row in range(9):
        statement.write_text(whole)
        changed(statement, "included", "5000", row=row)
        assert check_statement.main([str(statement)]) == 1, row


def test_a_file_that_was_changed_at_all_has_another_sha256(statement: Path) -> None:
    statement.write_text(statement.read_text().replace("Backend", "Frontend"))

    status, said = checked(statement)
    assert (status, said.count("SHA-256")) == (1, 1)


def test_a_changed_amount_is_found_without_the_manifest(
    statement: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(f"{statement}.manifest.json").unlink()
    assert check_statement.main([str(statement)]) == 0
    rows = list(csv.DictReader(io.StringIO(statement.read_text(), newline="")))
    place = next(place for place, row in enumerate(rows) if row["meter"] == "hours")
    changed(statement, "amount", "0.42", row=place)

    assert check_statement.main([str(statement)]) == 1
    assert "1.234 at 0.333 are 0.41" in capsys.readouterr().out


def test_a_share_that_moved_from_one_key_to_another_is_found(key: Key, statement: Path) -> None:
    key.organization.subscriptions.update(start=MAY.start)  # so that no other plan can have had a part in it
    export("--output", str(statement))
    Path(f"{statement}.manifest.json").unlink()
    rows = list(csv.DictReader(io.StringIO(statement.read_text(), newline="")))
    first, second = [place for place, row in enumerate(rows) if row["tier"] == "2"][:2]
    for place, cents in ((first, -4), (second, 4)):
        moved = round(float(rows[place]["amount"]) * 100) + cents
        changed(statement, "amount", f"{moved / 100:.2f}", row=place)

    assert check_statement.main([str(statement)]) == 1


def test_packages_are_checked_when_their_size_is_told(
    key: Key, journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    price = {"model": "package", "package": 1000, "unit_price": "5.00"}
    builders.subscription(key.organization, builders.version("packs", requests=price), MAY.start)
    builders.used(key, 1001, MAY.start)
    file = tmp_path / "may.csv"
    export("--output", str(file))

    assert check_statement.main([str(file)]) == 0
    assert "2 packages at 5" in capsys.readouterr().out
    assert check_statement.main([str(file), "--package", "requests=1000"]) == 0
    assert check_statement.main([str(file), "--package", "requests=500"]) == 1


def test_tiers_are_checked_by_the_unit_though_another_month_sold_packages(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    june = MAY.next
    price = {"model": "package", "package": 7, "unit_price": "1.25"}
    builders.subscription(key.organization, builders.version("packs", requests=price), MAY.start, june.start)
    builders.subscription(key.organization, builders.version("tiers", requests=GRADUATED), june.start)
    files = [tmp_path / "may.csv", tmp_path / "june.csv"]
    for period, file in zip((MAY, june), files, strict=True):
        builders.used(key, 40, period.start)
        export("--output", str(file), period=str(period))

    assert check_statement.main([*map(str, files), "--package", "requests=7"]) == 0


@pytest.mark.parametrize(
    ("package", "unit_price", "used", "sold", "size"),
    [
        (250, "5.00", 2_600, 11, "0.25"),  # smaller than a unit
        (1_500, "5.00", 4_000, 3, "1.5"),
        (2_000, "0.125", 5_000, 3, "2"),  # whose price is no whole number of cents
    ],
)
def test_packages_of_any_size_and_price_check(
    key: Key,
    journal_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    package: int,
    unit_price: str,
    used: int,
    sold: int,
    size: str,
) -> None:
    builders.meter("hours", unit="hour", decimals=3)
    price = {"model": "package", "package": package, "unit_price": unit_price}
    builders.subscription(key.organization, builders.version("packs", hours=price), MAY.start)
    builders.used(key, used, MAY.start, meter="hours")
    file = tmp_path / "may.csv"
    export("--output", str(file))

    assert check_statement.main([str(file)]) == 0
    assert f"{sold} packages at " in capsys.readouterr().out
    assert check_statement.main([str(file), "--package", f"hours={size}"]) == 0
    assert "--package" not in capsys.readouterr().out
    assert check_statement.main([str(file), "--package", "hours=10"]) == 1


@pytest.mark.parametrize(
    ("price", "first", "second"),
    [
        ({"unit_price": "0.01", "included": 10}, 10, 2000),  # one key's share is all included
        ({"unit_price": "0.005"}, 1, 1),  # each plan's is rounded
        ({"model": "package", "package": 7, "unit_price": "1.25"}, 1, 1),  # each plan's begins a package
    ],
)
@pytest.mark.parametrize("fees", [(0, 0), (0, 3100), (100, 3100)])
def test_a_plan_that_follows_another_in_the_month_checks(
    key: Key,
    journal_dir: Path,
    tmp_path: Path,
    price: dict[str, object],
    first: int,
    second: int,
    fees: list[int],
) -> None:
    middle = MAY.start.replace(day=15)
    old, new = (builders.version("basic", fee=fee, requests=price) for fee in fees)
    builders.subscription(key.organization, old, MAY.start, middle)
    builders.subscription(key.organization, new, middle)
    builders.used(key, first, MAY.start)
    builders.used(builders.key(key.organization).key, second, middle)
    file = tmp_path / "may.csv"
    export("--output", str(file))

    packages = ["--package", "requests=7"] * ("package" in price)
    assert check_statement.main([str(file), *packages]) == 0
    changed(file, "amount", "99.00")
    assert check_statement.main([str(file), *packages]) == 1


@pytest.mark.parametrize("argv", [(), ("--organization", "acme")])
def test_statements_that_do_not_follow_each_other_are_named(
    key: Key, journal_dir: Path, tmp_path: Path, settings: Settings, argv: tuple[str, ...]
) -> None:
    settings.BILLING_GRACE_HOURS = 0
    june = Period(2026, 6)
    builders.used(builders.key(builders.organization("globex")).key, 3, MAY.start)
    files = []
    for period in (MAY, june):
        builders.used(key, 5, period.start)
        closing.close(period, lifecycle.command_actor(), now=period.end)
        files.append(tmp_path / f"{period}.csv")
        export(*argv, "--output", str(files[-1]), period=str(period))

    assert checked(*files)[0] == 0
    manifest = Path(f"{files[0]}.manifest.json")
    manifest.write_text(manifest.read_text().replace('sha256": "', 'sha256": "0'))
    status, said = checked(*reversed(files))
    assert (status, "2026-06 follows another 2026-05" in said) == (1, True)


def test_several_months_in_one_file_are_checked_together(key: Key, journal_dir: Path, tmp_path: Path) -> None:
    version = builders.version("basic", fee=3100, requests=GRADUATED)
    builders.subscription(key.organization, version, MAY.start)
    for period in (MAY, Period(2026, 6)):
        builders.used(key, 500, period.start)
    file = tmp_path / "both.csv"
    export("--period", "2026-05", "--output", str(file), period="2026-06")

    assert check_statement.main([str(file)]) == 0
    changed(file, "amount", "9.99")
    assert check_statement.main([str(file)]) == 1


def corrected(
    of: Key, folder: Path, price: dict[str, object], late: list[tuple[Key, int, int]]
) -> list[Path]:
    """The files of May, in which 40 were used, June and July; `late` is May's usage that they carry."""
    months = [MAY, MAY.next, MAY.next.next]
    builders.subscription(of.organization, builders.version("basic", fee=3100, requests=price), MAY.start)
    builders.used(of, 40, MAY.start)
    for number, (key, quantity, booked) in enumerate(late):
        builders.used(key, quantity, MAY.start, booked=months[booked].first_day, resource=f"r{number}")
    files = []
    for month in months:
        files.append(folder / f"{month}.csv")
        totals = Totals()
        content = b"".join(totals.through(FORMATS["csv"](totals.of(lines_of(month)))))
        files[-1].write_bytes(content)
        said = json.dumps(manifest(month, None, None, totals), default=str)
        Path(f"{files[-1]}.manifest.json").write_text(said)
    return files


PER_UNIT = {"unit_price": "0.015", "included": 30}
PACKAGE = {"model": "package", "package": 7, "unit_price": "1.25", "included": 3}


@pytest.mark.parametrize("late", [15, -5, -15])
@pytest.mark.parametrize("price", [PER_UNIT, PACKAGE])
def test_corrections_are_computed_from_the_month_that_they_correct(
    key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str], price: dict[str, object], late: int
) -> None:
    other = builders.key(key.organization).key
    files = corrected(key, tmp_path, price, [(key, late, 1), (other, late, 1), (other, 4, 2)])
    argv = [str(each) for each in files] + ["--package", "requests=7"] * (price is PACKAGE)

    assert check_statement.main(argv) == 0
    assert "note: " not in capsys.readouterr().out.replace("note: The month was open", "")
    rows = list(csv.DictReader(io.StringIO(files[2].read_text(), newline="")))
    place = next(place for place, row in enumerate(rows) if row["kind"] == "correction")
    changed(files[2], "amount", f"{Decimal(rows[place]['amount']) + 1}", row=place)
    Path(f"{files[2]}.manifest.json").unlink()
    assert check_statement.main(argv) == 1
    assert "With the corrections until 2026-07: acme, 2026-05, requests: the" in capsys.readouterr().out


def test_what_is_included_is_not_included_twice(
    key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = corrected(key, tmp_path, PER_UNIT, [(key, 15, 1)])
    Path(f"{files[1]}.manifest.json").unlink()
    rows = list(csv.DictReader(io.StringIO(files[1].read_text(), newline="")))
    place = next(place for place, row in enumerate(rows) if row["kind"] == "correction")
    for column, value in (("included", "15"), ("billable", "0"), ("amount", "0.00")):
        changed(files[1], column, value, row=place)

    assert check_statement.main([*map(str, files)]) == 1
    assert "another quantity is included than in 2026-05" in capsys.readouterr().out


def test_it_is_said_which_corrections_cannot_be_computed(
    key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = corrected(key, tmp_path, GRADUATED, [(key, 15, 2)])

    for some, why in (
        (files, "2026-05 does not say at which price"),
        (files[1:], "with the files of 2026-05 to 2026-07"),
        ([files[0], files[2]], "with the files of 2026-05 to 2026-07"),
    ):
        assert check_statement.main([*map(str, some)]) == 0
        assert f"corrections of 2026-05, requests: only added up; {why}" in capsys.readouterr().out
    # Its shares are checked all the same.
    rows = list(csv.DictReader(io.StringIO(files[2].read_text(), newline="")))
    for month in ("0001-01", "9999-12", "2026-07"):
        changed(files[2], "original_period", month, row=len(rows) - 1)
        assert check_statement.main([*map(str, files)]) in (0, 1)


@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    uses=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 90), st.integers(0, 2)), max_size=6),
    price=st.sampled_from([PER_UNIT, PACKAGE, GRADUATED, GRADUATED | {"model": "volume"}]),
)
def test_whatever_comes_late_checks(
    key: Key, tmp_path: Path, uses: list[tuple[int, int, int]], price: dict[str, object]
) -> None:
    keys = [key, *Key.objects.exclude(pk=key.pk)]
    while len(keys) < 3:
        keys.append(builders.key(key.organization).key)
    Rollup.objects.all().delete()
    key.organization.subscriptions.all().delete()
    Price.objects.all().delete()
    late = [(keys[which], quantity, booked) for which, quantity, booked in uses]
    files = corrected(key, tmp_path, price, late)

    assert check_statement.main([*map(str, files)]) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 10,
        b"\xff\xfe",
        b"a,b\n1,2\n",
        ",".join(Line._fields).encode() + b"\n1,2\n",
        ",".join(Line._fields).encode() + b'\n"' + b"x" * (1 << 20) + b'"' + b"," * 18 + b"\n",
    ],
)
def test_junk_is_one_sentence(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(content)

    assert check_statement.main([str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "manifest",
    ["[]", "null", "{", '{"lines": []}', '{"quantity_by_meter": {"requests": {}}}', '{"periods": 5}'],
)
def test_a_manifest_of_junk_is_a_difference_or_a_sentence(statement: Path, manifest: str) -> None:
    Path(f"{statement}.manifest.json").write_text(manifest)

    assert check_statement.main([str(statement)]) in (1, 2)


def test_what_is_no_file_and_no_size_is_said(tmp_path: Path) -> None:
    for arguments in (["/nonexistent/x.csv"], [str(tmp_path)], ["x\0.csv"]):
        assert check_statement.main(arguments) == 2
    assert checked("x.csv", "--package", "requests=many")[0] == 2


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    uses=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 5000)), max_size=8),
    fee=st.integers(0, 10_000),
    price=st.sampled_from([GRADUATED, {"unit_price": "0.00335", "included": 100}]),
)
def test_whatever_is_exported_checks_and_adds_up(
    key: Key, tmp_path: Path, uses: list[tuple[int, int, int]], fee: int, price: dict[str, object]
) -> None:
    keys = [key, *Key.objects.exclude(pk=key.pk)]
    while len(keys) < 3:
        keys.append(builders.key(key.organization).key)
    Rollup.objects.all().delete()
    key.organization.subscriptions.all().delete()
    Price.objects.all().delete()
    version = builders.version("basic", fee=fee, requests=price)
    builders.subscription(key.organization, version, MAY.start.replace(day=3))
    for number, (which, hours, quantity) in enumerate(uses):
        builders.used(
            keys[which],
            quantity,
            MAY.start.replace(day=1 + hours // 24, hour=hours % 24),
            resource=f"r{number}",
        )

    totals, file = Totals(), tmp_path / "may.csv"
    file.write_bytes(b"".join(FORMATS["csv"](totals.of(lines(MAY)))))
    assert check_statement.main([str(file)]) == 0

    def parsed(format_name: str) -> list[dict[str, str]]:
        text = b"".join(FORMATS[format_name](lines(MAY))).decode()
        if format_name == "jsonl":
            return [json.loads(line) for line in text.splitlines()]
        return list(csv.DictReader(io.StringIO(text, newline="")))

    amount = Decimal(totals.amount_by_currency.get("USD", "0"))
    for format_name, column in (("csv", "amount"), ("jsonl", "amount"), ("focus", "BilledCost")):
        assert sum((Decimal(row[column]) for row in parsed(format_name)), Decimal(0)) == amount
    used = sum(int(row["quantity"]) for row in parsed("csv") if row["meter"])
    assert used == totals.quantity_by_meter.get("requests", 0)


def test_the_manifest_has_the_sums_of_what_was_parsed(statement: Path) -> None:
    manifest = json.loads(Path(f"{statement}.manifest.json").read_text())
    rows = list(csv.DictReader(io.StringIO(statement.read_text(), newline="")))
    cents = sum(round(float(row["amount"]) * 100) for row in rows)
    assert manifest["amount_by_currency"] == {"USD": f"{cents // 100}.{cents % 100:02}"}
    assert manifest["lines"] == len(rows)
