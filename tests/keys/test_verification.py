"""The verdict on a credential: every code that belongs to keys, what it costs, and what junk gets."""

import datetime as dt
import random
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from keys import lifecycle, tokens
from keys.directory import Directory
from keys.models import AuditEvent
from keys.verdicts import BY_NUMBER, Code, Verdict
from keys.verification import verify
from tests import builders
from tests.builders import NOW

pytestmark = pytest.mark.django_db
COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)


def ask(
    directory: Directory,
    credential: str,
    *,
    at: dt.datetime = NOW,
    scopes: tuple[str, ...] = (),
    environment: str = "",
    address: str = "203.0.113.7",
) -> Verdict:
    return verify(
        credential,
        directory=directory,
        now=at.timestamp(),
        scopes=scopes,
        environment=environment,
        address=address,
    )


def test_a_good_key_is_valid_and_says_whose_it_is(directory: Directory) -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme, scopes=("orders:write", "orders:read"), metadata={"team": "a"}, now=NOW)
    directory.refresh()
    verdict = ask(directory, issued.plaintext, scopes=("orders:read",), environment="live")
    assert verdict.allowed
    assert verdict.secret is not None
    key = verdict.secret.key
    assert (key.public_id, key.organization.slug) == (issued.key.public_id, "acme")
    assert key.scopes_text == "orders:read orders:write"
    assert key.metadata == {"team": "a"}


def test_every_state_has_its_code_and_names_the_key(directory: Directory) -> None:
    acme, closed = builders.organization("acme"), builders.organization("closed")
    make = {
        code: builders.key(closed if code is Code.ORGANIZATION_SUSPENDED else acme, name=code.name, now=NOW)
        for code in (Code.REVOKED, Code.DISABLED, Code.ORGANIZATION_SUSPENDED)
    }
    lifecycle.revoke_key(COMMAND, make[Code.REVOKED].key, now=NOW)
    lifecycle.disable_key(COMMAND, make[Code.DISABLED].key, now=NOW)
    lifecycle.suspend_organization(COMMAND, closed, reason="", now=NOW)
    make[Code.EXPIRED] = builders.key(acme, expires_at=NOW + DAY, now=NOW - DAY)
    directory.refresh()
    for code, issued in make.items():
        at = NOW + DAY if code is Code.EXPIRED else NOW
        verdict = ask(directory, issued.plaintext, at=at)
        assert verdict.code is code
        assert verdict.secret is not None
        assert verdict.secret.key.id == issued.key.pk


@pytest.mark.parametrize(
    ("arguments", "code", "detail"),
    [
        ({"scopes": ("orders:read", "orders:write", "a:b")}, Code.INSUFFICIENT_SCOPE, "a:b orders:write"),
        ({"environment": "test"}, Code.ENVIRONMENT_MISMATCH, "live"),
        ({"address": "198.51.100.1"}, Code.IP_NOT_ALLOWED, ""),
        ({"address": ""}, Code.IP_NOT_ALLOWED, ""),
        ({"address": "junk"}, Code.IP_NOT_ALLOWED, ""),
        ({"address": "::ffff:203.0.113.9"}, Code.VALID, ""),
        ({"address": "2001:db8::1"}, Code.VALID, ""),
        ({"address": "2001:db9::1"}, Code.IP_NOT_ALLOWED, ""),
    ],
)
def test_a_call_outside_what_the_key_may_do_is_refused(
    directory: Directory, arguments: dict[str, object], code: Code, detail: str
) -> None:
    acme = builders.organization("acme")
    issued = builders.key(
        acme, scopes=("orders:read",), networks=["203.0.113.0/24", "2001:db8::/32"], now=NOW
    )
    directory.refresh()
    verdict = ask(directory, issued.plaintext, **arguments)  # type: ignore[arg-type]  # a table of arguments
    assert verdict.code is code
    assert detail in verdict.detail


def test_a_replaced_secret_works_through_the_overlap_and_is_revoked_at_its_end(directory: Directory) -> None:
    first = builders.key(builders.organization("acme"), now=NOW)
    second = lifecycle.rotate_key(COMMAND, first.key, overlap=DAY, now=NOW)
    directory.refresh()
    assert ask(directory, first.plaintext, at=NOW + DAY - dt.timedelta(seconds=1)).allowed
    assert ask(directory, first.plaintext, at=NOW + DAY).code is Code.REVOKED
    assert ask(directory, second.plaintext, at=NOW + DAY).allowed


def test_a_key_that_is_newer_than_the_picture_is_found(directory: Directory) -> None:
    directory.refresh()
    issued = builders.key(builders.organization("acme"), now=NOW)
    assert ask(directory, issued.plaintext).allowed


def test_a_key_of_an_earlier_prefix_stays_valid(directory: Directory, settings: object) -> None:
    old = builders.key(builders.organization("acme"), now=NOW)
    settings.KEY_PREFIX = "acme"  # type: ignore[attr-defined]  # pytest-django's fixture
    directory = Directory(process_id="later", lock_dir=Path("/nonexistent"))
    directory.refresh()
    assert ask(directory, old.plaintext).allowed
    assert directory.begins_like_ours(old.plaintext)
    assert directory.begins_like_ours("acme_live_x")
    assert not directory.begins_like_ours("ey_live_x")
    assert not directory.begins_like_ours("lk")


def test_an_imported_key_of_any_format_is_verified_and_explained_after_its_end(directory: Directory) -> None:
    acme = builders.organization("acme")
    digest = tokens.digest("sk-from-elsewhere").hex()
    key = lifecycle.import_key(COMMAND, acme, name="old", sha256=digest, now=NOW)
    directory.refresh()
    assert ask(directory, "sk-from-elsewhere").allowed
    lifecycle.revoke_key(COMMAND, key, now=NOW)
    directory.refresh()
    assert ask(directory, "sk-from-elsewhere").code is Code.REVOKED


def test_no_credential_is_nobodys_even_if_the_digest_of_nothing_is_here(directory: Directory) -> None:
    key = builders.key(builders.organization("acme"), now=NOW).key
    key.secrets.update(digest=tokens.digest(""), imported=True)
    for _ in range(2):
        directory.refresh()
        assert ask(directory, "").code is Code.MISSING_CREDENTIAL
        lifecycle.revoke_key(COMMAND, key, now=NOW)


def test_a_bad_checksum_costs_no_query_and_every_one_character_change_is_refused(
    directory: Directory,
) -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    directory.refresh()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        for position in range(len(issued.plaintext)):
            for other in "A0z_-é\x00":
                if other != issued.plaintext[position]:
                    changed = issued.plaintext[:position] + other + issued.plaintext[position + 1 :]
                    assert ask(directory, changed).code is Code.MALFORMED
    assert len(queries) == 0


def test_a_hundred_thousand_random_strings_are_malformed_without_a_query_or_a_row(
    directory: Directory,
) -> None:
    directory.refresh()
    source = random.Random(20)  # the same strings every time
    events = AuditEvent.objects.count()
    with CaptureQueriesContext(connection) as queries:
        for _ in range(100_000):
            text = "".join(map(chr, source.choices(range(1, 0x3000), k=source.randrange(1, 60))))
            assert ask(directory, text).code is Code.MALFORMED
    assert len(queries) == 0
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize("junk", ["\x00", "\ud800", "lk_live_" + "\udfff" * 38, "x" * 1_048_576, "🔑" * 100])
def test_junk_is_malformed_and_nothing_worse(directory: Directory, junk: str) -> None:
    directory.refresh()
    assert ask(directory, junk).code is Code.MALFORMED
    assert ask(directory, "").code is Code.MISSING_CREDENTIAL


def test_a_well_formed_key_that_nobody_made_is_unknown_and_asked_for_once(directory: Directory) -> None:
    directory.refresh()
    made_up = tokens.mint("lk", "live").plaintext
    with CaptureQueriesContext(connection) as queries:
        for _ in range(5):
            assert ask(directory, made_up).code is Code.UNKNOWN
    assert len(queries) == 1


def test_before_the_keys_are_loaded_the_answer_is_unavailable_never_401(directory: Directory) -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    for credential in (issued.plaintext, "junk", tokens.mint("lk", "live").plaintext):
        assert ask(directory, credential).code is Code.UNAVAILABLE


def test_the_contract_has_these_codes_and_statuses() -> None:
    assert {code.name: code.status for code in Code} == {
        "VALID": 200,
        "BAD_REQUEST": 400,
        "MULTIPLE_CREDENTIALS": 400,
        "MISSING_CREDENTIAL": 401,
        "MALFORMED": 401,
        "UNKNOWN": 401,
        "REVOKED": 401,
        "EXPIRED": 401,
        "DISABLED": 401,
        "ORGANIZATION_SUSPENDED": 403,
        "IP_NOT_ALLOWED": 403,
        "ENVIRONMENT_MISMATCH": 403,
        "INSUFFICIENT_SCOPE": 403,
        "RATE_LIMITED": 429,
        "QUOTA_EXCEEDED": 429,
        "UNAVAILABLE": 503,
        "BROWNOUT": 403,
    }
    # The journal stores the numbers: they never change.
    assert [code.number for code in Code] == list(range(1, 18))
    assert all(BY_NUMBER[code.number] is code for code in Code)
