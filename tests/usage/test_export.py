"""The billing export: what is in it, its bytes, its manifest, and that it is there whole or not at all."""

import datetime as dt
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.models import Key
from keys.verdicts import Code
from tests import builders
from tests.usage.exported import MAY, addressed, export, refused, rows, used
from usage import billing, definitions, journal, meters
from usage.billing import Period
from usage.exports import BESIDE, FORMATS
from usage.exports.cells import in_units, of_lines
from usage.exports.csv import guarded
from usage.journal import Event
from usage.models import Rollup

COLUMNS = (
    "period,organization,organization_name,external_customer,key,key_name,environment,meter,resource,unit,tier,"
    "quantity,included,billable,unit_price,amount,currency,kind,original_period"
)

LINE = billing.Line(
    "2026-05", "acme", "Acme", None, "key_1", "Backend", "live", "m", None, "m", None, 0, None, 0,
    None, None, None, "usage", None,
)  # fmt: skip


@pytest.fixture
def key(db: None) -> Key:
    return builders.key(builders.organization("acme")).key


# --- what is in it --------------------------------------------------------------------------------


def test_csv_has_the_contracts_columns_and_leaves_those_without_a_value_empty(
    key: Key, journal_dir: Path
) -> None:
    used(key, 5)

    text = export()

    assert text.splitlines()[0] == COLUMNS
    assert rows(text) == [
        {
            "period": "2026-05",
            "organization": "acme",
            "organization_name": "Acme",
            "external_customer": "",
            "key": key.public_id,
            "key_name": "Backend",
            "environment": "live",
            "meter": "requests",
            "resource": "",
            "unit": "request",
            "tier": "",
            "quantity": "5",
            "included": "",
            "billable": "5",
            "unit_price": "",
            "amount": "",
            "currency": "",
            "kind": "usage",
            "original_period": "",
        }
    ]


def test_jsonl_has_the_same_facts_with_nulls_and_whole_numbers(key: Key, journal_dir: Path) -> None:
    used(key, 5)

    [line] = [json.loads(line) for line in export("--format", "jsonl").splitlines()]

    assert ",".join(line) == COLUMNS
    assert {name: value if value is not None else "" for name, value in line.items()} == (
        rows(export())[0] | {"quantity": 5, "billable": 5}
    )
    assert line["amount"] is None
    assert line["external_customer"] is None


def test_refused_calls_are_left_out_and_a_test_keys_listed_but_never_billed(
    key: Key, journal_dir: Path
) -> None:
    test_key = builders.key(key.organization, environment="test").key
    used(key, 5, outcome="RATE_LIMITED")
    used(test_key, 7)

    lines = [(row["environment"], row["quantity"], row["billable"]) for row in rows(export())]
    assert lines == [("test", "7", "0")]


def test_hours_are_summed_and_resources_and_meters_kept_apart(key: Key, journal_dir: Path) -> None:
    for hours in range(3):
        used(key, 2, hour=MAY.start + dt.timedelta(hours=hours))
    used(key, 10, resource="/tiles")
    used(key, 100, meter="tokens")

    lines = [(row["meter"], row["resource"], row["unit"], row["quantity"]) for row in rows(export())]
    assert lines == [
        ("requests", "", "request", "6"),
        ("requests", "/tiles", "request", "10"),
        ("tokens", "", "", "100"),
    ]


def test_quantities_are_in_units_with_all_the_meters_decimals(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    hours = builders.meter("hours", unit="=hour", decimals=3)
    definitions.archive_meter(lifecycle.command_actor(), hours, now=timezone.now())
    test_key = builders.key(key.organization, environment="test").key
    used(key, 1_500, meter="hours")
    used(test_key, 7, meter="hours")
    used(key, 2)

    from_csv = [
        (row["meter"], row["unit"], row["quantity"], row["billable"])
        for row in sorted(rows(export()), key=lambda row: (row["environment"], row["meter"]))
    ]
    assert from_csv == [
        ("hours", "'=hour", "1.500", "1.500"),
        ("requests", "request", "2", "2"),
        ("hours", "'=hour", "0.007", "0.000"),
    ]
    from_jsonl = [json.loads(line) for line in export("--format", "jsonl").splitlines()]
    assert {(row["meter"], row["quantity"], row["billable"]) for row in from_jsonl} == {
        ("hours", "1.500", "1.500"),
        ("hours", "0.007", "0.000"),
        ("requests", 2, 2),
    }
    export("--output", str(tmp_path / "may.csv"))
    manifest = json.loads((tmp_path / "may.csv.manifest.json").read_text())
    assert manifest["quantity_by_meter"] == {"hours": "1.507", "requests": 2}


@given(quantities=st.lists(st.integers(0, 2**53), max_size=4), decimals=st.integers(0, 6))
def test_what_is_exported_adds_up_exactly_whatever_the_decimals(quantities: list[int], decimals: int) -> None:
    meter = meters.Meter("m", "m", "M", decimals=decimals)
    lines = [
        LINE._replace(resource=f"r{n}", quantity=quantity, billable=quantity)
        for n, quantity in enumerate(quantities)
    ]
    shown = [cells["quantity"] for cells in of_lines(lines, {"m": meter})]
    assert sum(Decimal(str(each)) for each in shown) == Decimal(sum(quantities)).scaleb(-decimals)
    assert shown == [in_units(quantity, meter) for quantity in quantities]


def test_a_period_is_what_was_booked_to_it_and_nothing_else(key: Key, journal_dir: Path) -> None:
    used(key, 1, hour=MAY.start - dt.timedelta(hours=1))
    used(key, 2, hour=MAY.end - dt.timedelta(hours=1))
    used(key, 4, hour=MAY.end)

    assert [row["quantity"] for row in rows(export())] == ["2"]


def test_one_organization_can_be_exported_alone(key: Key, journal_dir: Path) -> None:
    other = builders.key(builders.organization("other")).key
    used(key, 1)
    used(other, 2)

    assert [row["organization"] for row in rows(export("--organization", "other"))] == ["other"]


def test_lines_are_sorted_by_code_points_whatever_the_databases_locale(key: Key, journal_dir: Path) -> None:
    for name in ("/b", "/A", "/a", "/B", "/ä", "/_", "/😀"):
        used(key, resource=name)
    for slug in ("a-b", "ab", "a", "b"):
        used(builders.key(builders.organization(slug)).key)

    exported = rows(export())
    order = [(row["organization"], row["key"], row["meter"], row["resource"]) for row in exported]
    assert len(order) == 11
    assert order == sorted(order)


def test_usage_of_a_key_that_the_database_lost_keeps_its_line(key: Key, journal_dir: Path) -> None:
    builders.rollup(
        organization_id=key.organization_id,
        hour=MAY.start,
        key_id=key.pk + 1000,
        meter="requests",
        outcome="VALID",
        booked_period=MAY.first_day,
        calls=3,
        quantity=3,
    )

    [row] = rows(export())
    assert (row["organization"], row["key"], row["quantity"]) == ("acme", f"unknown-{key.pk + 1000}", "3")


def test_a_period_without_calls_has_a_header_and_no_lines(db: None, journal_dir: Path) -> None:
    assert export() == COLUMNS + "\n"
    assert export("--format", "jsonl") == ""


def test_calls_that_are_still_in_the_journal_are_counted_first(key: Key, journal_dir: Path) -> None:
    secret = key.secrets.get()
    for code, cost in ((Code.VALID, 1), (Code.VALID, 3), (Code.RATE_LIMITED, 1)):
        journal.current().append(
            Event(
                key.organization_id,
                key.pk,
                secret.pk,
                code.number,
                cost,
                ("requests", "", "127.0.0.1", "curl"),
            )
        )
    journal.reset()
    month = f"{timezone.now():%Y-%m}"

    assert rows(export("--no-drain", period=month)) == []
    assert [row["quantity"] for row in rows(export(period=month))] == ["4"]
    assert [row["quantity"] for row in rows(export(period=month))] == ["4"]


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_text_that_could_start_a_formula_gets_an_apostrophe(start: str) -> None:
    assert guarded(f"{start}1+1") == f"'{start}1+1"
    assert guarded(f"a{start}1") == f"a{start}1"


def test_awkward_names_survive_csv_and_jsonl(key: Key, journal_dir: Path) -> None:
    actor, now = lifecycle.command_actor(), timezone.now()
    lifecycle.edit_organization(
        actor, key.organization, name='=SUM(A1), "Größe" 😀', external_customer="-cus_1", now=now
    )
    lifecycle.edit_key(actor, key, name="+49, 'x'; \u00e9\u4e2d", now=now)
    for name in ("line\nbreak", "@cell", 'quote"comma,', "\u2028"):
        used(key, 9, resource=name)

    csv_rows = rows(export())
    json_rows = [json.loads(line) for line in export("--format", "jsonl").splitlines()]

    assert {row["organization_name"] for row in csv_rows} == {'\'=SUM(A1), "Größe" 😀'}
    assert {row["external_customer"] for row in csv_rows} == {"'-cus_1"}
    assert {row["key_name"] for row in csv_rows} == {"'+49, 'x'; \u00e9\u4e2d"}
    assert {row["resource"] for row in csv_rows} == {"line\nbreak", "'@cell", 'quote"comma,', "\u2028"}
    assert {row["quantity"] for row in csv_rows} == {"9"}
    assert {row["organization_name"] for row in json_rows} == {'=SUM(A1), "Größe" 😀'}
    assert {row["resource"] for row in json_rows} == {"line\nbreak", "@cell", 'quote"comma,', "\u2028"}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
USES = st.dictionaries(
    st.tuples(
        st.integers(min_value=0, max_value=40 * 24),  # hours from the month's start, and beyond it
        st.integers(min_value=0, max_value=1),  # key
        st.sampled_from(["VALID", "EXPIRED"]),
        TEXT,  # resource
    ),
    st.integers(min_value=0, max_value=2**53),
    max_size=20,
)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(uses=USES)
def test_the_lines_add_up_to_the_roll_ups_in_every_format(
    key: Key, journal_dir: Path, uses: dict[tuple[int, int, str, str], int]
) -> None:
    keys = [
        key,
        Key.objects.exclude(pk=key.pk).first() or builders.key(key.organization, environment="test").key,
    ]
    Rollup.objects.all().delete()
    expected: Counter[tuple[str, str]] = Counter()
    for (hours, which, outcome, name), quantity in uses.items():
        hour = MAY.start + dt.timedelta(hours=hours)
        used(keys[which], quantity, hour=hour, outcome=outcome, resource=name)
        if outcome == "VALID" and hour < MAY.end:
            expected[keys[which].public_id, name] += quantity

    lines = list(billing.lines(MAY))
    from_csv = rows(b"".join(FORMATS["csv"](lines)).decode())
    from_jsonl = [json.loads(line) for line in b"".join(FORMATS["jsonl"](lines)).decode().splitlines()]

    used_at_all = {group: quantity for group, quantity in expected.items() if quantity}
    assert {(line.key, line.resource or ""): line.quantity for line in lines} == used_at_all
    assert [(row["key"], row["resource"] or "") for row in from_jsonl] == sorted(
        {(line.key, line.resource or "") for line in lines}
    )
    assert [row["quantity"] for row in from_jsonl] == [int(row["quantity"]) for row in from_csv]
    assert [guarded(row["resource"] or "") for row in from_jsonl] == [row["resource"] for row in from_csv]


# --- the file and its manifest --------------------------------------------------------------------


@pytest.mark.parametrize("format_name", list(FORMATS))
def test_the_same_numbers_give_the_same_bytes_and_the_manifest_describes_them(
    key: Key, journal_dir: Path, tmp_path: Path, format_name: str
) -> None:
    addressed(key.organization)
    used(key, 5)
    used(key, 2, resource="/tiles")
    used(key, 4, meter="tokens")
    first, second = tmp_path / "first", tmp_path / "second"

    for file in (first, second):
        export("--format", format_name, "--output", str(file))

    content = first.read_bytes()
    manifests = [Path(f"{file}.manifest.json").read_bytes() for file in (first, second)]
    assert content == second.read_bytes()
    assert b"\r" not in content
    assert manifests[0] == manifests[1]
    assert json.loads(manifests[0]) == {
        "period": "2026-05",
        "status": "open",
        "complete_through": None,
        "lines": 3,
        "quantity_by_meter": {"requests": 7, "tokens": 4},
        "amount_by_currency": {},
        "sha256": hashlib.sha256(content).hexdigest(),
        "previous_sha256": None,
    }
    ends = ["", ".manifest.json", *(end for end, _ in BESIDE.get(format_name, ()))]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        f"{name}{end}" for name in ("first", "second") for end in ends
    }


def test_the_manifest_says_through_when_the_numbers_are_complete(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    journal.current().append(
        Event(key.organization_id, key.pk, key.secrets.get().pk, 1, 1, ("requests", "", "127.0.0.1", "curl"))
    )
    journal.reset()
    now = timezone.now()

    export("--output", str(tmp_path / "now.csv"), period=f"{now:%Y-%m}")
    export("--output", str(tmp_path / "past.csv"), period="2026-05")

    def complete(name: str) -> dt.datetime:
        manifest = json.loads((tmp_path / f"{name}.manifest.json").read_text())
        return dt.datetime.fromisoformat(manifest["complete_through"])

    assert abs(complete("now.csv") - now) < dt.timedelta(minutes=1)
    assert complete("past.csv") == MAY.end


@pytest.mark.parametrize("format_name", list(FORMATS))
def test_a_failure_leaves_the_old_file_and_nothing_else(
    key: Key, journal_dir: Path, tmp_path: Path, format_name: str
) -> None:
    addressed(key.organization)
    used(key, 5)
    file = tmp_path / "may.csv"
    export("--format", format_name, "--output", str(file))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {"may.csv", "may.csv.manifest.json"} <= {path.name for path in before}
    used(key, 6, resource="/more")

    # A limit on the size of files stands for a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
    try:
        error = refused(
            *("--period", "2026-05", "--allow-open", "--no-drain", "--format", format_name),
            *("--output", str(file)),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)

    assert error.returncode == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


# On a file system of 64 KiB, in a mount namespace of its own; where mounting is not allowed a limit on the
# size of files stands for it. Says at the end what is there.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=64k tmpfs "$0" 2>/dev/null || ulimit -f 128
"$@"
echo "$? $(ls -A "$0")"
"""


@pytest.mark.django_db(transaction=True)
def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing(journal_dir: Path, tmp_path: Path) -> None:
    key = builders.key(builders.organization("acme")).key
    for number in range(400):
        used(key, resource=f"/{number:03}/{'x' * 120}")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = (sys.executable, str(settings.BASE_DIR / "manage.py"), "export_billing")
    argv = ("--period", "2026-05", "--allow-open", "--no-drain", "--output", str(disk / "may.csv"))
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    may = subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode == 0
    ran = subprocess.run(
        [*(namespace if may else []), "sh", "-c", ON_A_SMALL_DISK, str(disk), *command, *argv],
        env=builders.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout == "1 \n"
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith(f"{disk}/may.csv could not be written: ")


def test_an_output_that_cannot_be_written_is_one_sentence_and_exit_1(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    for output in (
        tmp_path / "no" / "such" / "folder.csv",
        tmp_path,
        Path("/dev/null"),
        Path("/proc/may.csv"),
        tmp_path / ("x" * 250),
    ):
        error = refused("--period", "2026-05", "--allow-open", "--output", str(output))
        assert error.returncode == 1
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_an_output_behind_a_symbolic_link_is_written_where_it_points(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")

    export("--output", str(tmp_path / "link.csv"))

    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == COLUMNS + "\n"


# --- several months -------------------------------------------------------------------------------


def test_several_months_are_one_file_in_their_order_and_the_manifest_has_each(
    key: Key, journal_dir: Path, tmp_path: Path
) -> None:
    used(key, 5)
    used(key, 7, hour=MAY.end)
    used(key, 1, hour=MAY.end, meter="tokens")
    path = tmp_path / "both.csv"

    export("--period", "2026-04", "--output", str(path), period="2026-06")
    assert [(row["period"], row["quantity"]) for row in rows(path.read_text())] == [
        ("2026-06", "7"),
        ("2026-06", "1"),
    ]
    export("--period", "2026-05", "--output", str(path), period="2026-06")

    assert [(row["period"], row["quantity"]) for row in rows(path.read_text())] == [
        ("2026-05", "5"),
        ("2026-06", "7"),
        ("2026-06", "1"),
    ]
    month: dict[str, Any] = {"status": "open", "complete_through": None, "amount_by_currency": {}}
    assert json.loads(Path(f"{path}.manifest.json").read_text()) == {
        "periods": [
            month | {"period": "2026-05", "lines": 1, "quantity_by_meter": {"requests": 5}},
            month | {"period": "2026-06", "lines": 2, "quantity_by_meter": {"requests": 7, "tokens": 1}},
        ],
        "lines": 3,
        "quantity_by_meter": {"requests": 12, "tokens": 1},
        "amount_by_currency": {},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize("option", ["--output", "--organization", "--period"])
@pytest.mark.parametrize("junk", ["x\0y", "\ud800", "x" * (1 << 20)])
def test_junk_in_any_option_is_one_sentence(db: None, journal_dir: Path, option: str, junk: str) -> None:
    assert refused(option, junk, "--period", "2026-05", "--allow-open", "--no-drain").returncode in (1, 2)


def test_a_month_given_twice_is_a_bad_argument(db: None, journal_dir: Path) -> None:
    error = refused("--period", "2026-05", "--period", "2026-04", "--period", "2026-05", "--allow-open")

    assert error.returncode == 2
    assert str(error) == "2026-05 is given twice."


def test_one_open_month_of_several_is_refused(db: None, journal_dir: Path) -> None:
    assert refused("--period", "2026-04", "--period", "2026-05").returncode == 1


def test_the_manifest_of_one_organization_names_it(key: Key, journal_dir: Path, tmp_path: Path) -> None:
    export("--organization", "acme", "--output", str(tmp_path / "may.csv"))

    assert json.loads((tmp_path / "may.csv.manifest.json").read_text())["organization"] == "acme"


@pytest.mark.parametrize("format_name", list(FORMATS))
def test_memory_does_not_grow_with_the_lines(db: None, format_name: str) -> None:
    many = 9000
    lines = (
        LINE._replace(key=f"key_{number:010}", quantity=number, external_customer="cus_1")
        for number in range(1, many + 1)
    )
    pieces = FORMATS[format_name](lines)
    next(pieces)  # what is loaded once
    written = 0
    tracemalloc.start()
    for piece in pieces:
        written += len(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert written > 600_000 > peak


# --- arguments ------------------------------------------------------------------------------------


def test_an_open_period_is_refused_without_allow_open(db: None, journal_dir: Path) -> None:
    error = refused("--period", "2026-05")

    assert error.returncode == 1
    assert "--allow-open" in str(error)


@pytest.mark.parametrize(
    "argv", [("--period", "9000-01"), ("--period", "2026-05", "--organization", "nobody")]
)
def test_a_period_to_come_and_an_unknown_organization_are_bad_arguments(
    db: None, journal_dir: Path, argv: tuple[str, ...]
) -> None:
    assert refused(*argv, "--allow-open").returncode == 2


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-13", "2026-00", "2026-5", "26-05", "2026-05-01", "２０２６-05", "x"]
)
def test_what_is_not_a_month_is_not_a_period(text: str) -> None:
    with pytest.raises(ValueError, match="is not a month"):
        Period.parse(text)


def test_a_period_ends_where_the_next_begins() -> None:
    assert Period(2026, 12).end == Period(2027, 1).start
    assert str(Period.parse("2026-05")) == "2026-05"


# --- as a process ---------------------------------------------------------------------------------


def process(*argv: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "export_billing", *argv],
        env=builders.environment(),
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.django_db(transaction=True)
def test_stdout_has_the_bytes_of_the_file_and_a_closed_pipe_is_no_trouble(
    journal_dir: Path, tmp_path: Path
) -> None:
    key = builders.key(builders.organization("acme")).key
    for number in range(1500):
        used(key, resource=f"/{number:04}/ä")
    file = tmp_path / "may.csv"
    export("--output", str(file))

    whole = process("--period", "2026-05", "--allow-open", stdout=subprocess.PIPE)
    out, _ = whole.communicate()
    closed = process("--period", "2026-05", "--allow-open", stdout=subprocess.PIPE)
    assert closed.stdout is not None
    assert closed.stderr is not None
    closed.stdout.read(10)
    closed.stdout.close()
    err = closed.stderr.read()
    closed.wait()
    closed.stderr.close()

    assert (whole.returncode, out) == (0, file.read_bytes())
    assert b"Traceback" not in err
    assert b"Exception" not in err


@pytest.mark.parametrize(
    "argv", [("--period", "2026-13"), ("--period", "2026-05", "--format", "xml"), ("--format", "csv")]
)
def test_a_bad_command_line_exits_2_with_one_sentence(argv: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "export_billing", *argv],
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "DATABASE_URL": "sqlite:////nonexistent/x",
        },
    )

    assert (ran.returncode, ran.stdout) == (2, b"")
    assert len(ran.stderr.splitlines()) == 1
