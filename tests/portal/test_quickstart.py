"""quickstart: from a bare copy of the checkout to calls that are allowed, refused and counted."""

import csv
import http.client
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from keys import audit, lifecycle
from keys.models import AuditEvent, Key, KeyState, LeakReport, Organization
from keys.tokens import digest
from keys.verdicts import Code
from portal import demo, folder
from portal.management.commands.quickstart import Command
from portal.models import User
from tests import builders
from tests.waiting import until
from usage import reports, trials
from usage.demo import Traffic, seed_usage
from usage.models import Refusal, Rollup

DEADLINE = 90.0  # seconds; a start takes five on two idle cores
NOW = datetime(2026, 6, 15, 12, 20, tzinfo=UTC)


# --- as a process, on a copy of the checkout ------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a clone has, no var/ and no .env; and what Python compiled here, which takes it long."""
    copy = tmp_path / "checkout"
    for name in ("keys", "usage", "portal", "templates", "static"):
        shutil.copytree(settings.BASE_DIR / name, copy / name)
    shutil.copy(settings.BASE_DIR / "manage.py", copy)
    return copy


def clean_environment() -> dict[str, str]:
    """Nothing of the tests' own settings."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def manage(checkout: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *argv],
        cwd=checkout,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )


class Quickstart:
    """A running one: what it has printed, and how to end it."""

    def __init__(self, checkout: Path, *argv: str) -> None:
        self.checkout, self.port = checkout, free_port()
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "quickstart", "--port", str(self.port), *argv],
            cwd=checkout,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed = ""
        self.deadline = threading.Timer(DEADLINE, self.process.kill)
        self.deadline.daemon = True
        self.deadline.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if line.startswith("Ctrl-C ends it"):
                self.deadline.cancel()
                return
        pytest.fail(f"quickstart ended: {self.printed}")

    @property
    def secret(self) -> str:
        found = re.search(r"^  (lk_live_\w+)$", self.printed, re.MULTILINE)
        assert found is not None
        return found[1]

    @property
    def curls(self) -> list[str]:
        return [line.strip() for line in self.printed.splitlines() if line.strip().startswith("curl ")]

    def billed(self) -> dict[str, int]:
        """Quantity by key name, from the printed export line, run as printed."""
        [line] = [line.strip() for line in self.printed.splitlines() if "export_billing" in line]
        python, script, *argv = shlex.split(line)
        assert (python, script) == ("python", "manage.py")
        ran = manage(self.checkout, *argv)
        assert ran.returncode == 0, ran.stderr
        sums: dict[str, int] = {}
        for row in csv.DictReader(io.StringIO(ran.stdout)):
            sums[row["key_name"]] = sums.get(row["key_name"], 0) + int(row["quantity"])
        return sums

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


@pytest.fixture
def started() -> Iterator[list[Quickstart]]:
    """Put what runs in here, and it ends with the test."""
    running: list[Quickstart] = []
    yield running
    for each in running:
        if each.process.poll() is None:
            each.interrupt()


def status_of(curl: str) -> tuple[int, str]:
    """Run a printed line as it is (or, where there is no curl, the call that it stands for)."""
    if shutil.which("curl"):
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
        head = answer.partition("\r\n\r\n")[0]
        code = re.search(r"^x-portal-code: (\w+)", head, re.IGNORECASE | re.MULTILINE)
        return int(head.split()[1]), code[1] if code else ""
    _, _, _, header, address = shlex.split(curl)
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    connection.request("GET", f"{url.path}?{url.query}", headers=dict([header.split(": ", 1)]))
    response = connection.getresponse()
    return response.status, response.headers["X-Portal-Code"]


def descendants(pid: int) -> set[int]:
    """Every process that `pid` has started, and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def test_an_empty_checkout_answers_counts_and_ends_all_it_started(
    checkout: Path, started: list[Quickstart]
) -> None:
    run = Quickstart(checkout)
    started.append(run)

    var = checkout / "var"
    assert var.stat().st_mode & 0o777 == 0o700
    assert (var / ".env").stat().st_mode & 0o777 == 0o600
    assert [status_of(curl) for curl in run.curls] == [
        (200, "VALID"),
        (403, "INSUFFICIENT_SCOPE"),
        (401, "MALFORMED"),
    ]
    assert run.billed()["Quickstart"] == 1
    for _ in range(4):
        assert status_of(run.curls[0])[0] == 200
    assert run.billed()["Quickstart"] == 5

    # While it serves, nobody takes its port, its folder or its data.
    for argv, words in (
        (("--port", str(run.port)), "is taken"),
        (("--port", str(free_port())), "running already"),
        (("--port", str(free_port()), "--reset"), "still serving"),
    ):
        other = manage(checkout, "quickstart", *argv)
        assert (other.returncode, other.stdout) == (1, "")
        assert words in other.stderr
        assert len(other.stderr.splitlines()) == 1
    assert status_of(run.curls[0])[0] == 200

    children = descendants(run.process.pid)
    assert len(children) >= 2
    assert run.interrupt() == 0
    until(lambda: not living(children), 5, why=lambda: f"still there: {living(children)}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", run.port))


def test_a_second_run_keeps_the_data_and_reset_begins_again(
    checkout: Path, started: list[Quickstart]
) -> None:
    env = checkout / "var" / ".env"
    first = Quickstart(checkout)
    started.append(first)
    assert status_of(first.curls[0]) == (200, "VALID")
    first.interrupt()
    secret_key = re.findall("SECRET_KEY=.*", env.read_text())

    second = Quickstart(checkout)
    started.append(second)
    old = first.curls[0].replace(str(first.port), str(second.port))
    assert status_of(old) == (401, "REVOKED")
    assert status_of(second.curls[0]) == (200, "VALID")
    assert second.billed()["Quickstart"] == 2
    assert re.findall("SECRET_KEY=.*", env.read_text()) == secret_key
    assert f"PORTAL_URL=http://127.0.0.1:{second.port}\n" in env.read_text()
    second.interrupt()

    (checkout / "var" / "mine.csv").touch()
    third = Quickstart(checkout, "--reset")
    started.append(third)
    assert status_of(third.curls[0]) == (200, "VALID")
    assert status_of(old.replace(str(second.port), str(third.port))) == (401, "UNKNOWN")
    assert third.billed()["Quickstart"] == 1
    assert re.findall("SECRET_KEY=.*", env.read_text()) != secret_key
    assert (checkout / "var" / "mine.csv").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--host", "0.0.0.0"), "plain http"),
        (("--host", "192.0.2.1"), "plain http"),
        (("--port", "0"), "65535"),
        (("--port", "70000"), "65535"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence_before_anything_is_made(
    var: Path, argv: tuple[str, ...], words: str
) -> None:
    with pytest.raises(CommandError, match=words) as caught:
        call_command("quickstart", *argv)

    assert caught.value.returncode == 2
    assert "\n" not in str(caught.value)
    assert not var.exists()


# --- the demo -------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_demo_has_a_key_in_every_state_and_an_unbroken_history() -> None:
    issued = demo.seed(NOW)

    states = {key.name: key.state_at(NOW) for key in issued.key.organization.keys.all()}
    assert set(states.values()) == {
        *(KeyState.ACTIVE, KeyState.EXPIRING, KeyState.EXPIRED, KeyState.REVOKED),
    }
    planner = Key.objects.get(name="Route planner")
    assert [secret.works_at(NOW) for secret in planner.secrets.all()] == [True, True]
    assert list(audit.broken_links()) == []
    times = list(AuditEvent.objects.order_by("number").values_list("at", flat=True))
    assert times == sorted(times)
    assert EmailAddress.objects.filter(verified=True, primary=True).count() == len(demo.PEOPLE)


@pytest.mark.django_db
def test_the_demos_usage_is_thirty_days_with_refusals() -> None:
    organization = demo.seed(NOW).key.organization
    start = NOW.date() - timedelta(days=30)

    days = reports.daily(organization, start, NOW.date() + timedelta(days=1))
    totals = reports.totals(organization, NOW - timedelta(days=31), NOW + timedelta(hours=1))

    assert all(day.accepted for day in days)
    weekdays = [day.accepted for day in days[1:-1] if day.date.weekday() < 5]
    weekends = [day.accepted for day in days[1:-1] if day.date.weekday() >= 5]
    assert sum(weekdays) / len(weekdays) > sum(weekends) / len(weekends)
    assert {reason for reason, _ in totals.reasons} >= {"RATE_LIMITED", "EXPIRED", "INSUFFICIENT_SCOPE"}
    assert 0 < totals.refused < totals.accepted / 20


@pytest.mark.django_db
def test_the_same_start_gives_the_same_usage_and_it_adds_up() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW - timedelta(days=40))
    traffic = [
        Traffic(issued.secret, peak=100, shares={"a": 0.5, "b": 0.5}, refused={Code.RATE_LIMITED: 0.1})
    ]

    sums = []
    for _ in range(2):
        seed_usage(traffic, NOW)
        totals = reports.totals(issued.key.organization, NOW - timedelta(days=31), NOW + timedelta(hours=1))
        sums.append((totals.accepted, totals.refused))

    assert sums[1] == (2 * sums[0][0], 2 * sums[0][1])


@pytest.mark.django_db
def test_the_demo_lists_refusals_of_the_last_days_and_each_is_in_the_sums() -> None:
    organization = demo.seed(NOW).key.organization
    listed = Refusal.objects.filter(organization=organization)
    assert 20 < listed.count() < 2000
    assert len(set(listed.values_list("outcome", flat=True))) > 2
    for row in listed.order_by("?")[:20]:
        assert NOW - timedelta(days=3) < row.at <= NOW
        counted = Rollup.objects.filter(key=row.key_id, outcome=row.outcome, resource=row.resource)
        assert counted.exists()


@pytest.mark.django_db
def test_no_last_use_is_later_than_now_or_than_the_keys_end() -> None:
    organization = demo.seed(NOW).key.organization

    keys = {key.pk: key for key in organization.keys.all()}
    uses = reports.key_last_used(organization, list(keys))
    assert len(uses) == len(keys) - 2  # all but the new one and the canary
    for pk, used in uses.items():
        ends = [moment for moment in (NOW, keys[pk].revoked_at, keys[pk].expires_at) if moment]
        assert keys[pk].created_at < used <= min(ends)


@pytest.mark.django_db
def test_each_page_about_safety_has_something_to_show() -> None:
    organization = demo.seed(NOW).key.organization
    reports = LeakReport.objects.filter(key__organization=organization).order_by("reported_at")
    assert [(report.door, report.key.canary) for report in reports] == [("github", False), ("canary", True)]
    trial = organization.trials.running().get()
    found = trials.judge(trial, trial.started_at)
    assert found.places
    assert found.rates[0].calls
    assert found.quotas[0].over


@pytest.mark.django_db
def test_a_later_run_finds_the_demo_and_renews_key_and_password() -> None:
    first = demo.seed(timezone.now())
    organization = demo.find()
    assert organization is not None
    assert not demo.is_somebody_elses()

    second = demo.working_key(organization, timezone.now())
    password = demo.renew_password()

    assert second.key.pk == first.key.pk
    assert [secret.stops_at is None for secret in first.key.secrets.all()] == [True, False]
    assert all(person.check_password(password) for person in User.objects.all())


@pytest.mark.django_db
def test_a_revoked_quickstart_key_is_followed_by_a_new_one() -> None:
    first = demo.seed(timezone.now())
    lifecycle.revoke_key(lifecycle.command_actor(), first.key, now=timezone.now())
    organization = demo.find()
    assert organization is not None

    second = demo.working_key(organization, timezone.now())

    assert second.key.pk != first.key.pk
    assert second.secret.digest == digest(second.plaintext)


@pytest.mark.django_db
def test_a_database_of_somebody_elses_is_left_alone() -> None:
    builders.organization("real", builders.user("ann"))
    before = (AuditEvent.objects.count(), User.objects.get().password)

    assert demo.is_somebody_elses()  # so that it is not migrated either
    text = Command()._prepare("http://127.0.0.1:8000")

    assert "data of its own" in text
    assert "lk_live_" not in text
    assert (AuditEvent.objects.count(), User.objects.get().password) == before
    assert Organization.objects.get().slug == "real"


# --- var/ -----------------------------------------------------------------------------------------


@pytest.fixture
def var(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A var/ of this test's own, not yet there, and nothing in the environment about it."""
    settings.VAR_DIR = tmp_path / "var"
    settings.STATIC_ROOT = settings.VAR_DIR / "static"
    settings.USAGE_JOURNAL_DIR = settings.VAR_DIR / "journal"
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", str(settings.VAR_DIR / "latchkey.sqlite3"))
    settings.PORTAL_URL = "http://127.0.0.1:8000"
    for name in ("ENV_FILE", "SECRET_KEY", "PORTAL_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "var"


def test_the_first_run_writes_a_key_of_its_own_and_the_next_keeps_it(
    var: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    first = folder.prepare("http://127.0.0.1:8000")
    monkeypatch.setenv("SECRET_KEY", first["SECRET_KEY"])
    monkeypatch.setenv("PORTAL_URL", first["PORTAL_URL"])

    assert len(first["SECRET_KEY"]) >= 50
    assert folder.prepare("http://127.0.0.1:8000") == {}
    assert folder.prepare("http://127.0.0.1:9000") == {"PORTAL_URL": "http://127.0.0.1:9000"}
    assert first["SECRET_KEY"] in (var / ".env").read_text()


def test_a_url_that_somebody_chose_stays(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_URL", "https://keys.example.com")
    monkeypatch.setenv("SECRET_KEY", "chosen")

    assert folder.prepare("http://127.0.0.1:9000") == {}
    assert folder.url_is_chosen()
    assert not (var / ".env").exists()


def test_an_env_file_of_somebody_elses_is_not_touched(var: Path) -> None:
    var.mkdir()
    (var / ".env").write_text("SECRET_KEY=mine\n")

    folder.prepare("http://127.0.0.1:9000")

    assert (var / ".env").read_text() == "SECRET_KEY=mine\n"
    with pytest.raises(folder.Refused, match="not made by quickstart"):
        folder.reset()
    assert (var / ".env").exists()


def test_reset_waits_for_whoever_uses_the_folder(var: Path) -> None:
    folder.prepare("http://127.0.0.1:8000")
    using = folder.mark_in_use()
    assert using is not None
    with pytest.raises(folder.Refused, match="still serving"):
        folder.reset()
    os.close(using)
    folder.reset()
    assert not var.exists()


def test_a_second_quickstart_changes_nothing_of_the_firsts(var: Path) -> None:
    lock = folder.hold()
    folder.prepare("http://127.0.0.1:8000")
    before = (var / ".env").read_text()
    with pytest.raises(CommandError, match="running already"):
        call_command("quickstart", port=free_port())
    assert (var / ".env").read_text() == before
    os.close(lock)


def test_reset_leaves_journals_elsewhere_alone(var: Path, settings: Settings, tmp_path: Path) -> None:
    folder.prepare("http://127.0.0.1:8000")
    settings.USAGE_JOURNAL_DIR = tmp_path / "elsewhere" / "journal"

    with pytest.raises(folder.Refused, match="elsewhere"):
        folder.reset()
    assert (var / ".env").exists()
