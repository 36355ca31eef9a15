"""The commands about organizations, scopes and keys: what they print where, and how they fail."""

import hashlib
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core import mail
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle, presence, tokens
from keys.models import AuditEvent, Key, Organization, Scope, Secret
from portal.models import User
from tests import builders
from usage.models import SecretUse

MANAGE = [sys.executable, str(settings.BASE_DIR / "manage.py")]


class Ran:
    """What a command printed, and how it ended."""

    def __init__(self, *argv: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.status = 0
        try:
            call_command(*argv, stdout=out, stderr=err)
        except CommandError as error:
            self.status = error.returncode
            print(error, file=err)
        self.out, self.err = out.getvalue(), err.getvalue()


def on_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.fixture
def acme(db: None) -> Organization:
    builders.scope("orders:read")
    return builders.organization("acme")


# --- organizations and scopes ---------------------------------------------------------------------


def test_create_organization_makes_it_once_and_then_changes_only_the_name(db: None) -> None:
    first = Ran("create_organization", "acme", "--name", "Acme")
    again = Ran("create_organization", "acme", "--name", "Acme")
    renamed = Ran("create_organization", "acme", "--name", "Acme Maps")

    assert (first.status, again.status, renamed.status) == (0, 0, 0)
    assert "exists already" in again.err
    assert "Acme Maps" in renamed.err
    assert Organization.objects.get(slug="acme").name == "Acme Maps"
    acts = AuditEvent.objects.order_by("number").values_list("act", flat=True)
    assert list(acts) == ["organization.created", "organization.edited"]


def test_create_organization_gives_it_to_its_owner_who_may_be_new(db: None) -> None:
    assert Ran("create_organization", "acme", "--name", "Acme", "--owner", "Ann@Example.com").status == 0
    assert Ran("create_organization", "acme", "--name", "Acme", "--owner", "ann@example.com").status == 0

    ann = User.objects.get()
    assert (ann.email, ann.has_usable_password()) == ("ann@example.com", False)
    assert [(m.user_id, m.role) for m in Organization.objects.get().memberships.all()] == [(ann.pk, "owner")]


def test_a_new_owner_signs_in_with_mailed_codes(client: Client, db: None) -> None:
    Ran("create_organization", "acme", "--name", "Acme", "--owner", "ann@example.com")

    client.post(reverse("account_request_login_code"), {"email": "ann@example.com"})
    # The first code signs in, the second confirms the address.
    for page in ("account_confirm_login_code", "account_email_verification_sent"):
        code = re.search(r"^ +([A-Z0-9-]+)$", str(mail.outbox[-1].body), re.MULTILINE)
        assert code is not None
        client.post(reverse(page), {"code": code[1]})

    assert client.session["_auth_user_id"] == str(User.objects.get().pk)


def test_create_organization_makes_an_existing_member_its_owner(db: None) -> None:
    acme = builders.organization("acme")
    member = builders.member(builders.user("bob"), acme)

    assert Ran("create_organization", "acme", "--name", "Acme", "--owner", "bob@example.com").status == 0

    member.refresh_from_db()
    assert member.role == "owner"


def test_a_refused_organization_leaves_no_user_behind(db: None) -> None:
    ran = Ran("create_organization", "Not A Slug", "--name", "Acme", "--owner", "ann@example.com")

    assert (ran.status, ran.out) == (2, "")
    assert "slug" in ran.err
    assert not User.objects.exists()


def test_create_scope_makes_it_once_and_then_changes_only_the_description(db: None) -> None:
    first = Ran("create_scope", "orders:read", "--description", "Read orders")
    again = Ran("create_scope", "orders:read", "--description", "Read all orders")

    assert (first.status, again.status) == (0, 0)
    assert "exists already" in again.err
    assert Scope.objects.get(name="orders:read").description == "Read all orders"


def test_create_scope_refuses_the_portals_own(db: None) -> None:
    assert Ran("create_scope", "portal:keys", "--description", "Mine now").status == 2
    assert Scope.objects.get(name="portal:keys").description != "Mine now"


# --- create, import -------------------------------------------------------------------------------


def test_create_key_prints_the_secret_and_nothing_else_on_stdout(acme: Organization) -> None:
    builders.meter("pages")
    ran = Ran(
        *("create_key", "--organization", "acme", "--name", "Backend", "--scope", "orders:read"),
        *("--environment", "test", "--network", "10.0.0.0/8", "--rate", "10/second", "--expires-in", "30d"),
        *("--quota", "1000/month", "--quota", "50 pages/day"),
    )

    secret = ran.out.removesuffix("\n")
    key = Key.objects.get()
    assert tokens.parse(secret) is not None
    assert key.secrets.get().digest == tokens.digest(secret)
    assert (key.name, key.environment, key.networks, key.rates) == (
        *("Backend", "test"),
        *(["10.0.0.0/8"], ["10/second"]),
    )
    assert key.quotas == ["50 pages/day", "1000/month"]
    assert key.expires_at is not None
    assert abs(key.expires_at - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
    assert key.public_id in ran.err
    assert secret not in ran.err


def test_create_key_json_is_one_object_with_every_fact(acme: Organization) -> None:
    ran = Ran(
        *("create_key", "--organization", "acme", "--name", "Backend", "--scope", "orders:read"),
        *("--expires-in", "never", "--json"),
    )

    facts = json.loads(ran.out)
    key = Key.objects.get()
    assert tokens.digest(facts.pop("secret")) == key.secrets.get().digest
    assert facts == {
        "id": key.public_id,
        "name": "Backend",
        "organization": "acme",
        "environment": "live",
        "scopes": ["orders:read"],
        "expires_at": None,
    }


def test_a_key_expires_in_ninety_days_unless_said_otherwise(acme: Organization) -> None:
    Ran("create_key", "--organization", "acme", "--name", "Backend")

    expires_at = Key.objects.get().expires_at
    assert expires_at is not None
    assert abs(expires_at - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)


def test_a_suspended_organization_is_a_reason_of_state(acme: Organization) -> None:
    lifecycle.suspend_organization(lifecycle.command_actor(), acme, reason="unpaid", now=timezone.now())

    ran = Ran("create_key", "--organization", "acme", "--name", "Backend")

    assert (ran.status, ran.out) == (1, "")
    assert "suspended" in ran.err


@pytest.mark.parametrize(
    "argv",
    [
        ("--organization", "nobody", "--name", "x"),
        ("--organization", "\udcff", "--name", "x"),
        ("--organization", "acme", "--name", ""),
        ("--organization", "acme", "--name", "a\nb"),
        ("--organization", "acme", "--name", "x", "--scope", "no:such"),
        ("--organization", "acme", "--name", "x", "--network", "10.0.0.1/8"),
        ("--organization", "acme", "--name", "x", "--rate", "fast"),
        ("--organization", "acme", "--name", "x", "--expires-in", "0"),
    ],
)
def test_create_key_refuses_a_bad_argument_in_one_sentence(acme: Organization, argv: tuple[str, ...]) -> None:
    ran = Ran("create_key", *argv)

    assert (ran.status, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert not Key.objects.exists()


def test_import_key_takes_a_digest_and_the_key_is_found_by_its_secret(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"sk-from-elsewhere").hexdigest()

    ran = Ran(
        *("import_key", "--organization", "acme", "--name", "Old", "--sha256", digest, "--hint", "here"),
        *("--scope", "orders:read", "--environment", "test", "--expires-in", "1w"),
    )

    key = Key.objects.get()
    assert ran.out == f"{key.public_id}\n"
    assert key.secrets.get().display == "imported …here"
    on_stdin(monkeypatch, b"sk-from-elsewhere\n")
    assert key.public_id in Ran("inspect_key", "--secret-stdin").out


def test_import_key_twice_is_a_conflict_and_a_short_digest_a_bad_argument(acme: Organization) -> None:
    argv = ("import_key", "--organization", "acme", "--name", "Old", "--sha256")

    digests = ["ab" * 32, "ab" * 32, "ab", hashlib.sha256().hexdigest()]
    assert [Ran(*argv, digest).status for digest in digests] == [0, 1, 2, 2]


# --- rotate ---------------------------------------------------------------------------------------


def test_rotate_key_prints_the_new_secret_and_the_old_one_works_for_the_overlap(acme: Organization) -> None:
    issued = builders.key(acme)

    ran = Ran("rotate_key", issued.key.public_id, "--overlap", "2h")

    assert tokens.digest(ran.out.strip()) == issued.key.secrets.get(stops_at=None).digest
    stops_at = Secret.objects.get(pk=issued.secret.pk).stops_at
    assert stops_at is not None
    assert abs(stops_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)
    assert "works until" in ran.err


def test_rotate_key_json_says_when_the_old_secret_stops(acme: Organization) -> None:
    issued = builders.key(acme)

    facts = json.loads(Ran("rotate_key", issued.key.public_id, "--json").out)

    assert facts["id"] == issued.key.public_id
    stops_at = datetime.fromisoformat(facts["previous_stops_at"])
    assert abs(stops_at - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=1)


def test_rotate_key_says_when_the_key_itself_expires_soon(acme: Organization) -> None:
    soon = builders.key(acme, expires_at=timezone.now() + timedelta(days=3)).key
    later = builders.key(acme, expires_at=timezone.now() + timedelta(days=60)).key

    assert "expires on" in Ran("rotate_key", soon.public_id).err
    assert "expires on" not in Ran("rotate_key", later.public_id).err


def test_rotating_a_revoked_key_is_a_reason_of_state_and_an_unknown_one_a_bad_argument(
    acme: Organization,
) -> None:
    key = builders.key(acme).key
    lifecycle.revoke_key(lifecycle.command_actor(), key, now=timezone.now())

    assert Ran("rotate_key", key.public_id).status == 1
    assert Ran("rotate_key", "key_nobody").status == 2
    assert Ran("rotate_key", builders.key(acme).key.public_id, "--overlap", "91d").status == 2


# --- revoke ---------------------------------------------------------------------------------------


def test_revoke_key_is_confirmed_at_once_where_nobody_serves(acme: Organization) -> None:
    key = builders.key(acme).key

    ran = Ran("revoke_key", key.public_id, "--reason", "leaked", "--wait", "0")

    key.refresh_from_db()
    assert (ran.status, key.revoked_reason) == (0, "leaked")
    assert "everywhere" in ran.err


def test_revoke_key_waits_for_a_living_process_and_says_which_and_until_when(
    acme: Organization, tmp_path: Path
) -> None:
    key = builders.key(acme).key
    lock_path = tmp_path / "process.lock"
    lock = presence.take_lock(lock_path)
    presence.join("process-1", socket.gethostname(), lock_path)

    unconfirmed = Ran("revoke_key", key.public_id, "--wait", "0")
    os.close(lock)
    confirmed = Ran("revoke_key", key.public_id, "--wait", "0")

    key.refresh_from_db()
    assert key.revoked_at is not None
    assert unconfirmed.status == 1
    assert f"{socket.gethostname()}/{os.getpid()}" in unconfirmed.err
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", unconfirmed.err)
    assert len(unconfirmed.err.splitlines()) == 1
    assert confirmed.status == 0
    assert "already" in confirmed.err


def test_revoke_key_finds_the_key_of_a_leaked_secret(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = builders.key(acme)
    on_stdin(monkeypatch, issued.plaintext.encode())

    ran = Ran("revoke_key", "--secret-stdin")

    assert ran.status == 0
    assert builders.reloaded(issued.key).revoked_at is not None
    assert issued.plaintext not in ran.out + ran.err


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon"])
def test_revoke_key_refuses_a_wait_that_is_none(acme: Organization, wait: str) -> None:
    key = builders.key(acme).key

    assert Ran("revoke_key", key.public_id, f"--wait={wait}").status in (1, 2)
    assert builders.reloaded(key).revoked_at is None


# --- inspect --------------------------------------------------------------------------------------


def test_inspect_key_says_which_key_it_is_and_never_the_secret(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = builders.key(acme)
    SecretUse.objects.create(secret=issued.secret, calls=1, last_used_at=datetime(2026, 6, 1, 12, tzinfo=UTC))
    on_stdin(monkeypatch, f"{issued.plaintext}\n".encode())

    ran = Ran("inspect_key", "--secret-stdin")

    assert ran.status == 0
    for fact in (issued.key.public_id, "acme", "live", "active", "2026-06-01 12:00:00 UTC"):
        assert fact in ran.out
    assert issued.plaintext not in ran.out + ran.err
    assert issued.plaintext[8:40] not in ran.out + ran.err


def test_inspect_key_works_for_revoked_expired_and_replaced(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor, past = lifecycle.command_actor(), timezone.now() - timedelta(days=100)
    revoked, expired, replaced = builders.key(acme), builders.key(acme, now=past), builders.key(acme)
    lifecycle.revoke_key(actor, revoked.key, reason="leaked", now=timezone.now())
    lifecycle.rotate_key(actor, replaced.key, overlap=timedelta(0), now=timezone.now())

    for issued, words in ((revoked, "revoked at"), (expired, "expired"), (replaced, "replaced; stopped at")):
        on_stdin(monkeypatch, issued.plaintext.encode())
        ran = Ran("inspect_key", "--secret-stdin")
        assert ran.status == 0
        assert words in ran.out


@pytest.mark.parametrize(
    ("content", "status", "word"),
    [
        (b"", 2, "nothing"),
        (b" \n", 2, "nothing"),
        (b"hello", 2, "MALFORMED"),
        (b"\0" * 40, 2, "MALFORMED"),
        (b"\xff\xfe\x80", 2, "MALFORMED"),
        (b"a" * 2**20, 2, "MALFORMED"),
        ("lk_live_ключ".encode(), 2, "MALFORMED"),
        (tokens.mint("lk", "live").plaintext.encode(), 1, "UNKNOWN"),
    ],
    # Chance in an id would give each of xdist's workers another test.
    ids=["nothing", "blank", "word", "nul", "bytes", "mebibyte", "unicode", "unknown"],
)
def test_inspect_key_is_clear_about_junk_and_does_not_repeat_it(
    db: None, monkeypatch: pytest.MonkeyPatch, content: bytes, status: int, word: str
) -> None:
    on_stdin(monkeypatch, content)

    ran = Ran("inspect_key", "--secret-stdin")

    assert (ran.status, ran.out) == (status, "")
    assert word in ran.err
    assert len(ran.err) < 200
    assert content.decode("utf-8", "replace").strip()[:40] not in ran.err or not content.strip()


# --- as processes: exit status, one sentence, closed pipes ----------------------------------------


def manage(*argv: str, stdin: bytes = b"", **overrides: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*MANAGE, *argv], input=stdin, capture_output=True, check=False, env=builders.environment(**overrides)
    )


@pytest.mark.parametrize(
    "argv",
    [
        ("create_key", "--name", "x"),
        ("create_key", "--organization", "acme", "--name", "x", "--expires-in", "soon"),
        ("create_key", "--organization", "acme", "--name", "x", "--expires-in", "999999w"),
        ("create_key", "--org", "acme", "--name", "x"),
        ("rotate_key",),
        ("revoke_key", "key_1", "--secret-stdin"),
        ("inspect_key",),
    ],
)
def test_a_bad_command_line_exits_2_with_one_sentence_and_no_usage_dump(argv: tuple[str, ...]) -> None:
    ran = subprocess.run([*MANAGE, *argv], capture_output=True, check=False, env=unset_database())

    assert (ran.returncode, ran.stdout) == (2, b"")
    assert len(ran.stderr.decode().splitlines()) == 1
    assert "usage:" not in ran.stderr.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "argv",
    [
        ("rotate_key", "SECRET"),
        ("revoke_key", "SECRET"),
        ("create_key", "--organization", "SECRET", "--name", "x"),
        ("create_key", "--organization", "acme", "--name", "x", "--expires-in", "SECRET"),
        ("export_billing", "--period", "SECRET", "--output", "-"),
        ("scan_secrets", "SECRET"),
        ("inspect_key", "SECRET"),
    ],
    ids=" ".join,
)
def test_a_secret_in_the_wrong_place_is_not_repeated(argv: tuple[str, ...]) -> None:
    secret = tokens.mint("lk", "live").plaintext
    ran = manage(*(secret if each == "SECRET" else each for each in argv))
    assert ran.returncode in (1, 2)
    assert ran.stderr.strip()
    assert secret[8:20] not in (ran.stderr + ran.stdout).decode()


def unset_database() -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "DATABASE_URL": "sqlite:////nonexistent/x",
    }


def test_a_database_that_does_not_answer_is_one_sentence_and_exit_1() -> None:
    ran = subprocess.run(
        [*MANAGE, "create_scope", "a:b", "--description", "x"],
        capture_output=True,
        check=False,
        env=unset_database(),
    )

    assert ran.returncode == 1
    assert len(ran.stderr.decode().splitlines()) == 1
    assert "database" in ran.stderr.decode()


def test_a_database_without_tables_is_told_to_migrate(tmp_path: Path) -> None:
    ran = subprocess.run(
        [*MANAGE, "create_scope", "a:b", "--description", "x"],
        capture_output=True,
        check=False,
        env=unset_database() | {"DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}"},
    )

    assert ran.returncode == 1
    assert ran.stderr.decode().splitlines() == [
        "The database has not been set up; run `manage.py migrate` first."
    ]


@pytest.mark.django_db(transaction=True)
def test_a_key_made_inspected_and_revoked_by_real_processes() -> None:
    builders.organization("acme")

    made = manage("create_key", "--organization", "acme", "--name", "Backend")
    inspected = manage("inspect_key", "--secret-stdin", stdin=made.stdout)
    revoked = manage("revoke_key", "--secret-stdin", stdin=made.stdout)
    unknown = manage("create_key", "--organization", "nobody", "--name", "x")

    assert [run.returncode for run in (made, inspected, revoked, unknown)] == [0, 0, 0, 2]
    assert tokens.parse(made.stdout.decode().strip()) is not None
    assert b"active" in inspected.stdout
    assert len(unknown.stderr.splitlines()) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_a_secret_that_could_not_be_written_is_said_and_not_shown(where: str) -> None:
    builders.organization("acme")

    command = shlex.join([*MANAGE, "create_key", "--organization", "acme", "--name", "Backend"])
    ran = subprocess.run(
        ["sh", "-c", f"{command} {where}"], capture_output=True, check=False, env=builders.environment()
    )

    lines = ran.stderr.decode().splitlines()
    assert ran.returncode == 1
    assert Key.objects.get().public_id in lines[-1]
    assert "rotate" in lines[-1]
    assert "Traceback" not in ran.stderr.decode()
