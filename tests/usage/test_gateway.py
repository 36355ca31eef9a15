"""The gateway as a proxy sees it: every code and every header."""

import datetime as dt
import logging
from pathlib import Path

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from keys import lifecycle, tokens
from keys.directory import Directory
from keys.models import Key
from keys.verdicts import Code
from tests.builders import in_brownout, key, organization
from tests.usage.gateways import Answer, ask, rollups
from usage import metering
from usage.models import Rollup, SecretUse, Segment

pytestmark = pytest.mark.django_db


def test_a_good_key_passes_and_says_whose_it_is(issued: lifecycle.Issued) -> None:
    answer = ask("scope=orders:read", bearer=issued.plaintext)
    request = answer.headers.pop("X-Portal-Request")
    assert answer == Answer(
        200,
        {
            "X-Portal-Status": "200",
            "X-Portal-Code": "VALID",
            "X-Portal-Key": issued.key.public_id,
            "X-Portal-Organization": "acme",
            "X-Portal-Environment": "live",
            "X-Portal-Scopes": "orders:read orders:write",
            "X-Portal-Key-Expires": "",
            "Cache-Control": "no-store",
        },
        b"",
    )
    spool, _, sequence = request.partition("-")
    assert len(spool) == 11
    assert int(sequence) > 0


def test_a_key_says_when_it_expires_in_its_last_30_days(directory: Directory) -> None:
    acme, now = organization("acme"), timezone.now()
    for expires_at, told in [
        (None, ""),
        (now + dt.timedelta(days=30, minutes=1), ""),
        (now + dt.timedelta(days=30), f"{now + dt.timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"),
        (dt.datetime(now.year + 6000, 2, 3, tzinfo=dt.UTC), ""),
    ]:
        made = key(acme, expires_at=expires_at)
        directory.refresh()
        for rule in ("", "scope=orders:read"):
            assert ask(rule, bearer=made.plaintext).headers["X-Portal-Key-Expires"] == told
    Key.objects.filter(pk=made.key.pk).update(expires_at=now - dt.timedelta(days=400))
    lifecycle.edit_key(lifecycle.command_actor(), made.key, name="Old", now=now)
    directory.refresh()
    expired = ask(bearer=made.plaintext)
    assert (expired.code, expired.headers["X-Portal-Key-Expires"]) == (
        "EXPIRED",
        f"{now - dt.timedelta(days=400):%Y-%m-%dT%H:%M:%SZ}",
    )


def test_a_brownout_is_a_403_that_says_for_how_long_and_bills_nothing(directory: Directory) -> None:
    made = in_brownout()
    directory.refresh()
    answer = ask(bearer=made.plaintext)
    assert (answer.status, answer.code) == (403, "BROWNOUT")
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    assert answer.headers["X-Portal-Key-Expires"]
    assert "WWW-Authenticate" not in answer.headers
    assert answer.problem["detail"].startswith("An announced brownout until ")
    assert ask("deny=403", bearer=made.plaintext).status == 403
    assert rollups() == {"BROWNOUT": (2, 0)}


def test_a_warm_key_costs_no_query(
    issued: lifecycle.Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert ask(bearer=issued.plaintext).status == 200
        assert ask(bearer=issued.plaintext[:-1] + "!").status == 401
        assert ask("scope=other:thing", bearer=issued.plaintext).status == 403


def test_calls_and_their_cost_reach_the_rollups(issued: lifecycle.Issued) -> None:
    ask("cost=7&resource=GET%20/orders", bearer=issued.plaintext, user_agent="tool/1")
    ask("cost=0", bearer=issued.plaintext)
    ask("scope=billing:read&cost=5", bearer=issued.plaintext)
    ask(bearer="junk")
    assert rollups().keys() == {"VALID", "INSUFFICIENT_SCOPE"}
    assert sum(row.quantity for row in Rollup.objects.all()) == 7
    assert Rollup.objects.get(resource="GET /orders").calls == 1
    assert SecretUse.objects.get(secret=issued.secret).calls == 2
    assert Segment.objects.get().sums["MALFORMED/requests"] == [1, 0]


@pytest.mark.parametrize(
    ("act", "code", "status"),
    [
        ("revoke", "REVOKED", 401),
        ("disable", "DISABLED", 401),
        ("suspend", "ORGANIZATION_SUSPENDED", 403),
    ],
)
def test_a_state_of_the_key_is_told(
    issued: lifecycle.Issued, directory: Directory, act: str, code: str, status: int
) -> None:
    actor, now = lifecycle.command_actor(), timezone.now()
    if act == "revoke":
        lifecycle.revoke_key(actor, issued.key, now=now)
    elif act == "disable":
        lifecycle.disable_key(actor, issued.key, now=now)
    else:
        lifecycle.suspend_organization(actor, issued.key.organization, reason="unpaid", now=now)
    directory.refresh()
    answer = ask(bearer=issued.plaintext)
    assert (answer.code, answer.status) == (code, status)
    assert answer.headers["X-Portal-Key"] == issued.key.public_id
    assert answer.problem["detail"] == Code[code].sentence


def test_a_missing_scope_is_named(issued: lifecycle.Issued) -> None:
    answer = ask("scope=orders:read&scope=billing:read", bearer=issued.plaintext)
    assert (answer.status, answer.problem["detail"]) == (403, "Missing scope: billing:read.")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


def test_the_environment_must_match(issued: lifecycle.Issued) -> None:
    assert ask("environment=test", bearer=issued.plaintext).code == "ENVIRONMENT_MISMATCH"
    assert ask("environment=live", bearer=issued.plaintext).code == "VALID"


def test_a_refusal_is_a_problem_document(directory: Directory) -> None:
    answer = ask(bearer="lk_live_nonsense")
    assert answer.problem == {
        "type": "http://127.0.0.1:8000/docs/errors/#MALFORMED",
        "title": "Malformed",
        "status": 401,
        "detail": Code.MALFORMED.sentence,
        "code": "MALFORMED",
        "request": answer.headers["X-Portal-Request"],
    }
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert int(answer.headers["Content-Length"]) == len(answer.body)


def test_deny_403_spares_nginx_every_status_but_401(issued: lifecycle.Issued, directory: Directory) -> None:
    assert ask("deny=403").status == 401
    refused = ask("deny=403&unknown=1")
    assert (refused.status, refused.headers["X-Portal-Status"]) == (403, "400")
    both = ask("deny=403", x_api_key=issued.plaintext, bearer=tokens.mint("lk", "live").plaintext)
    assert (both.status, both.headers["X-Portal-Status"]) == (403, "400")


def test_a_rate_is_kept_and_told(directory: Directory) -> None:
    limited = key(organization("acme"), rates=["2/hour"])
    directory.refresh()
    answers = [ask(bearer=limited.plaintext) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
    assert answers[0].headers["RateLimit-Policy"] == '"key-hour";q=2;w=3600'
    assert 0 < int(answers[2].headers["Retry-After"]) <= 3600
    assert answers[2].problem["violated-policies"] == ["key-hour"]
    assert ask("deny=403", bearer=limited.plaintext).headers["X-Portal-Status"] == "429"
    assert rollups() == {"VALID": (2, 2), "RATE_LIMITED": (2, 0)}


def test_a_quota_is_kept_and_told(directory: Directory) -> None:
    limited = key(organization("acme"), quotas=["5/month"])
    directory.refresh()
    answers = [ask("cost=3", bearer=limited.plaintext), ask("cost=3", bearer=limited.plaintext)]
    assert [answer.status for answer in answers] == [200, 429]
    assert "RateLimit" not in answers[0].headers  # those are about rates
    assert 0 < int(answers[1].headers["Retry-After"]) <= 31 * 86_400
    assert answers[1].problem["code"] == "QUOTA_EXCEEDED"
    assert answers[1].problem["violated-policies"] == ["key-month"]
    assert "it begins anew on" in answers[1].problem["detail"]
    assert ask("cost=2", bearer=limited.plaintext).status == 200
    assert ask("deny=403", bearer=limited.plaintext).headers["X-Portal-Status"] == "429"
    assert rollups() == {"VALID": (2, 5), "QUOTA_EXCEEDED": (2, 0)}


def test_a_journal_that_fails_lets_nothing_pass(
    issued: lifecycle.Issued, journal_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal_dir.chmod(0o500)
    for path in journal_dir.iterdir():
        path.unlink() if path.suffix == ".journal" else None
    (journal_dir.parent / "file").write_text("")
    process = metering._current()
    process.journal.directory = journal_dir.parent / "file"
    answer = ask(bearer=issued.plaintext)
    journal_dir.chmod(0o700)
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert answer.headers["Retry-After"]
    assert answer.headers["X-Portal-Request"] == ""


def test_memory_that_is_too_old_answers_503_and_never_401(journal_dir: Path) -> None:
    metering.start(Directory(process_id="cold", lock_dir=journal_dir))
    try:
        for credential in ("junk", tokens.mint("lk", "live").plaintext):
            answer = ask(bearer=credential)
            assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert ask("deny=403", bearer="junk").status == 403
    finally:
        metering.stop()


def test_a_bug_is_a_refusal_and_the_log_keeps_the_secret(
    issued: lifecycle.Issued, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(credential: str, *args: object) -> None:
        raise RuntimeError(f"cannot handle {credential}")

    monkeypatch.setattr(metering, "decide", broken)
    with caplog.at_level(logging.ERROR):
        assert ask(bearer=issued.plaintext).status == 503
        nginx = ask("deny=403", bearer=issued.plaintext)
    assert (nginx.status, nginx.headers["X-Portal-Status"]) == (403, "503")
    assert "RuntimeError" in caplog.text
    assert issued.plaintext not in caplog.text


latin1 = st.text(st.characters(max_codepoint=255), max_size=60)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(latin1, latin1, latin1, latin1, latin1)
@example("Bearer " + "a" * 1_000_000, "a" * 1_000_000, "scope=" + "a" * 99, "\0", "\0")
@example("Bearer \0", "lk_live_\ud800", "cost=%", ",,,", "/?\0")
def test_junk_is_never_a_500_and_never_passes(
    directory: Directory, authorization: str, api_key: str, query: str, forwarded: str, url: str
) -> None:
    directory.refresh()  # or it would be too old to call anything junk on a busy machine
    answer = ask(
        query,
        authorization=authorization,
        x_api_key=api_key,
        x_forwarded_for=forwarded,
        x_original_uri=url,
        user_agent=url,
        x_original_method=forwarded,
    )
    assert answer.status in (400, 401)
    assert ask(path="/gateway/envoy/" + url, x_portal_rule=query, bearer=api_key).status in (400, 401)
