"""The gateway as a proxy sees it: every code, every header, and nothing a client sends changes the rule."""

import datetime as dt
import json
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings

from keys import lifecycle, tokens
from keys.directory import Directory
from keys.models import Key
from keys.verdicts import Code
from tests.builders import in_brownout, key, meter, organization
from usage import definitions, gateway, metering, meters, rules
from usage.drain import drain_once
from usage.gateway import parse_rule
from usage.models import Hold, Rollup, ScopeUse, SecretUse, Segment, Source

pytestmark = pytest.mark.django_db

COMMAND = lifecycle.command_actor()

PORTAL_HEADERS = {
    "X-Portal-Status",
    "X-Portal-Code",
    "X-Portal-Key",
    "X-Portal-Organization",
    "X-Portal-Environment",
    "X-Portal-Scopes",
    "X-Portal-Key-Expires",
    "X-Portal-Request",
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return self.headers["X-Portal-Code"]

    @property
    def problem(self) -> dict[str, Any]:  # JSON
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.headers["X-Content-Type-Options"] == "nosniff"
        assert self.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


def ask(
    query: str = "",
    *,
    path: str = "/gateway/authorize",
    method: str = "GET",
    peer: str = "127.0.0.1",
    bearer: str | None = None,
    **headers: str,
) -> Answer:
    """One call of a proxy; `headers` by their names with underscores."""
    environ = {"REMOTE_ADDR": peer, "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    if bearer is not None:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {bearer}"
    started: list[Any] = []  # what WSGI passes
    body = gateway.application(environ, lambda status, sent: started.extend((status, sent)))
    names = [name for name, _ in started[1]]
    assert len(names) == len(set(names))
    assert set(names) >= PORTAL_HEADERS | {"Cache-Control"}
    return Answer(int(started[0][:3]), dict(started[1]), b"".join(body))


@pytest.fixture
def directory(journal_dir: Path) -> Iterator[Directory]:
    """This process's directory, refreshed by hand."""
    directory = Directory(process_id="test", lock_dir=journal_dir, followers=[("meter.", meters.reload)])
    meters.follow()
    directory.refresh()
    metering.start(directory)
    yield directory
    metering.stop()


@pytest.fixture
def issued(directory: Directory) -> lifecycle.Issued:
    made = key(organization("acme"), scopes=("orders:read", "orders:write"))
    directory.refresh()
    return made


def rollups() -> dict[str, tuple[int, int]]:
    drain_once(timezone.now())
    return {row.outcome: (row.calls, row.quantity) for row in Rollup.objects.all()}


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


LATER: dict[str, tuple[Callable[[lifecycle.Issued, dt.datetime], object], str]] = {
    "revoked": (lambda made, now: lifecycle.revoke_key(COMMAND, made.key, now=now), "REVOKED"),
    "disabled": (lambda made, now: lifecycle.disable_key(COMMAND, made.key, now=now), "DISABLED"),
    "suspended": (
        lambda made, now: lifecycle.suspend_organization(
            COMMAND, made.key.organization, reason="unpaid", now=now
        ),
        "ORGANIZATION_SUSPENDED",
    ),
    "without the scope": (
        lambda made, now: lifecycle.edit_key(COMMAND, made.key, scopes=["orders:write"], now=now),
        "INSUFFICIENT_SCOPE",
    ),
    "limited to a network": (
        lambda made, now: lifecycle.edit_key(COMMAND, made.key, networks=["192.0.2.0/24"], now=now),
        "IP_NOT_ALLOWED",
    ),
    "limited by a rate of its own": (
        lambda made, now: lifecycle.edit_key(COMMAND, made.key, rates=["1/day"], now=now),
        "RATE_LIMITED",
    ),
    "limited by its organization's rate": (
        lambda made, now: lifecycle.edit_policy(
            COMMAND, made.key.organization.policy, rates=["1/day"], now=now
        ),
        "RATE_LIMITED",
    ),
    "limited by its organization's quota": (
        lambda made, now: lifecycle.edit_policy(
            COMMAND, made.key.organization.policy, quotas=["1/day"], now=now
        ),
        "QUOTA_EXCEEDED",
    ),
}


@pytest.mark.parametrize("act", LATER)
def test_what_comes_later_stands_against_a_call_that_was_allowed(
    issued: lifecycle.Issued, directory: Directory, act: str
) -> None:
    """Passes are remembered; nothing that is said of a key or its organization is forgotten by that."""
    for _ in range(2):
        assert ask("scope=orders:read", bearer=issued.plaintext).status == 200
    change, code = LATER[act]
    change(issued, timezone.now())
    directory.refresh()
    codes = [ask("scope=orders:read", bearer=issued.plaintext).code for _ in range(3)]
    assert codes[1:] == [code] * 2
    assert codes[0] == code or (codes[0] == "VALID" and "LIMITED" in code + act.upper())


def test_a_call_that_was_allowed_is_none_once_the_time_has_come(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key's end, the end of a replaced secret, the 30 days in which its end is told, and a brownout."""
    now = timezone.now()
    acme = organization("acme")
    ending = key(acme, expires_at=now + dt.timedelta(days=40))
    rotated = key(acme, name="Rotated")
    lifecycle.rotate_key(COMMAND, rotated.key, overlap=dt.timedelta(days=1), now=now)
    directory.refresh()

    def asked(issued: lifecycle.Issued, **later: float) -> Answer:
        monkeypatch.setattr(gateway, "now", lambda: (now + dt.timedelta(**later)).timestamp())
        return ask(bearer=issued.plaintext)

    assert [asked(ending, days=days).headers["X-Portal-Key-Expires"] for days in (0, 0, 9)] == [""] * 3
    assert asked(ending, days=11).headers["X-Portal-Key-Expires"]
    assert asked(ending, days=39).code == "VALID"
    assert asked(ending, days=40, seconds=1).code == "EXPIRED"
    assert [asked(rotated, hours=hours).code for hours in (0, 23, 25)] == ["VALID", "VALID", "REVOKED"]
    lifecycle.edit_policy(COMMAND, acme.policy, brownout_days=14, now=now)
    directory.refresh()
    codes = {asked(ending, days=39, minutes=minute).code for minute in range(24 * 60 - 1)}
    assert codes == {"VALID", "BROWNOUT"}


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


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(issued: lifecycle.Issued, scheme: str) -> None:
    assert ask(authorization=f"{scheme} {issued.plaintext}").code == "VALID"


def test_x_api_key_is_as_good(issued: lifecycle.Issued) -> None:
    assert ask(x_api_key=issued.plaintext).code == "VALID"
    assert ask(x_api_key=issued.plaintext, bearer=issued.plaintext).code == "VALID"


def test_two_different_keys_of_ours_are_refused(issued: lifecycle.Issued) -> None:
    other = tokens.mint("lk", "live").plaintext
    answer = ask(x_api_key=issued.plaintext, bearer=other)
    assert (answer.status, answer.code) == (400, "MULTIPLE_CREDENTIALS")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="api", error="invalid_request"')
    assert ask(x_api_key=f"{issued.plaintext},{other}").code == "MULTIPLE_CREDENTIALS"
    both = f"Bearer {issued.plaintext}, Bearer {other}"  # two headers, as the server joins them
    assert ask(authorization=both).code == "MULTIPLE_CREDENTIALS"


def test_a_key_beside_another_scheme_is_found(issued: lifecycle.Issued) -> None:
    assert ask(authorization=f"Basic dXNlcjpwYXNz, Bearer {issued.plaintext}").code == "VALID"
    assert ask(authorization=f"Bearer {issued.plaintext}, Basic dXNlcjpwYXNz").code == "VALID"
    assert ask(authorization="Basic dXNlcjpwYXNz, Digest a=b").code == "MISSING_CREDENTIAL"


def test_an_envoy_rule_that_could_not_be_read_is_no_rule_at_all(issued: lifecycle.Issued) -> None:
    """The server makes bytes that are not UTF-8 into an empty value."""
    assert ask(path="/gateway/envoy/x", x_portal_rule="", bearer=issued.plaintext).code == "BAD_REQUEST"
    assert ask(path="/gateway/envoy/x", bearer=issued.plaintext).code == "VALID"


def test_a_foreign_bearer_beside_an_api_key_is_ignored(issued: lifecycle.Issued) -> None:
    assert ask(x_api_key=issued.plaintext, bearer="eyJhbGciOi.users.token").code == "VALID"
    assert ask(x_api_key="somebody-elses", bearer=issued.plaintext).code == "VALID"
    assert ask(x_api_key="junk", bearer="eyJhbGciOi.users.token").code == "MALFORMED"
    assert ask(authorization="Basic dXNlcjpwYXNz").code == "MISSING_CREDENTIAL"


def test_a_key_in_the_url_counts_only_if_that_is_set(issued: lifecycle.Issued, settings: Settings) -> None:
    url = f"/orders?page=2&api_key={issued.plaintext}"
    assert ask(x_original_uri=url).code == "MISSING_CREDENTIAL"
    settings.KEY_QUERY_PARAMETER = "api_key"
    assert ask(x_original_uri=url).code == "VALID"
    assert ask(x_forwarded_uri=url).code == "VALID"
    envoy = f"api_key={issued.plaintext}"
    assert ask(envoy, path="/gateway/envoy/orders", x_portal_rule="cost=1").code == "VALID"
    other = tokens.mint("lk", "live").plaintext
    assert ask(x_original_uri=url, bearer=other).code == "MULTIPLE_CREDENTIALS"
    assert ask(x_original_uri="/orders?api_key=%ff%00&api_key").code == "MALFORMED"


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


def test_no_credential_gets_a_bare_challenge(directory: Directory) -> None:
    answer = ask()
    assert (answer.status, answer.code) == (401, "MISSING_CREDENTIAL")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'


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


@pytest.fixture
def trusted(settings: Settings) -> None:
    """The proxy at 127.0.0.1 is ours, and states the client's method."""
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("header", ["x_original_method", "x_forwarded_method"])
def test_head_is_recorded_and_costs_nothing(issued: lifecycle.Issued, header: str) -> None:
    assert ask("cost=5", bearer=issued.plaintext, **{header: "HEAD"}).code == "VALID"
    assert rollups() == {"VALID": (1, 0)}


@pytest.mark.parametrize(
    ("query", "path"),
    [("cost=5&hold=1", "/gateway/authorize"), ("", "/gateway/envoy/orders")],
)
def test_a_call_on_hold_is_allowed_counted_and_kept(issued: lifecycle.Issued, query: str, path: str) -> None:
    headers = {} if query else {"x_portal_rule": "cost=5&hold=1"}
    answer = ask(query, path=path, bearer=issued.plaintext, **headers)
    assert answer.code == "VALID"
    assert rollups() == {"VALID": (1, 5)}
    assert str(Hold.objects.get()) == answer.headers["X-Portal-Request"]


def test_only_an_allowed_call_that_costs_is_held(issued: lifecycle.Issued) -> None:
    ask("hold=1", method="HEAD", bearer=issued.plaintext)
    ask("hold=0", bearer=issued.plaintext)
    ask("hold=1&environment=test", bearer=issued.plaintext)
    ask("hold=1", bearer="junk")
    drain_once(timezone.now())
    assert not Hold.objects.exists()


def test_a_callers_own_head_costs_nothing(issued: lifecycle.Issued) -> None:
    assert ask("cost=5", method="HEAD", bearer=issued.plaintext).code == "VALID"
    assert rollups() == {"VALID": (1, 0)}


@pytest.mark.usefixtures("trusted")
def test_a_preflight_passes_without_a_key_and_counts_nothing(directory: Directory) -> None:
    answer = ask("cost=5", x_original_method="OPTIONS", access_control_request_method="GET")
    assert (answer.status, answer.code, answer.headers["X-Portal-Key"]) == (200, "VALID", "")
    assert rollups() == {}
    assert Segment.objects.count() == 0


@pytest.mark.parametrize("header", ["x_original_method", "x_forwarded_method"])
def test_a_method_that_nobody_trusted_stated_opens_nothing(issued: lifecycle.Issued, header: str) -> None:
    """A proxy that sets neither header passes on what the client wrote there."""
    preflight = {header: "OPTIONS", "access_control_request_method": "GET"}
    assert ask(**preflight).code == "MISSING_CREDENTIAL"
    assert ask(bearer=issued.plaintext, **{header: "HEAD"}).code == "VALID"
    assert rollups() == {"VALID": (1, 1)}


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    "headers",
    [
        {"x_original_method": "OPTIONS"},
        {"x_original_method": "HEAD", "access_control_request_method": "GET"},
        {"x_original_method": "GET", "access_control_request_method": "GET"},
        {
            "x_original_method": "POST",
            "x_forwarded_method": "OPTIONS",
            "access_control_request_method": "GET",
        },
        {
            "x_original_method": "OPTIONS",
            "x_forwarded_method": "GET",
            "access_control_request_method": "GET",
        },
        {"method": "POST", "x_original_method": "OPTIONS", "access_control_request_method": "GET"},
    ],
)
def test_what_is_no_preflight_needs_a_key(directory: Directory, headers: dict[str, str]) -> None:
    assert ask(**headers).code == "MISSING_CREDENTIAL"


@pytest.mark.usefixtures("trusted")
def test_a_forged_method_makes_no_call_free(issued: lifecycle.Issued) -> None:
    ask(bearer=issued.plaintext, x_original_method="GET", x_forwarded_method="HEAD")
    ask(bearer=issued.plaintext, x_original_method="HEAD", x_forwarded_method="GET")
    ask(bearer=issued.plaintext, method="POST", x_original_method="HEAD")
    assert rollups() == {"VALID": (3, 3)}


def test_the_clients_own_query_changes_nothing(issued: lifecycle.Issued) -> None:
    url = "/orders?cost=0&deny=403&scope=&environment=test"
    answer = ask("cost=3&scope=orders:read", bearer=issued.plaintext, x_original_uri=url)
    assert answer.code == "VALID"
    assert rollups() == {"VALID": (1, 3)}


def test_envoys_rule_is_in_its_header_alone(issued: lifecycle.Issued) -> None:
    path = "/gateway/envoy/orders/1"
    answer = ask("cost=0&scope=x", path=path, bearer=issued.plaintext, x_portal_rule="cost=4")
    assert answer.code == "VALID"
    assert rollups() == {"VALID": (1, 4)}
    assert ask(path=path, bearer=issued.plaintext, x_portal_rule="scope=billing:read").status == 403
    # Elsewhere the header is nobody's word.
    assert ask(bearer=issued.plaintext, x_portal_rule="scope=billing:read").status == 200


def test_the_client_address_is_believed_from_trusted_proxies_only(
    directory: Directory, settings: Settings
) -> None:
    bound = key(organization("acme"), networks=["192.0.2.0/24"])
    directory.refresh()
    forwarded = {"x_forwarded_for": "192.0.2.7"}
    refused = ask(bearer=bound.plaintext, **forwarded)
    assert refused.code == "IP_NOT_ALLOWED"
    assert "127.0.0.1" in refused.problem["detail"]
    settings.TRUSTED_PROXIES = ["127.0.0.0/8"]
    assert ask(bearer=bound.plaintext, **forwarded).code == "VALID"
    assert ask(bearer=bound.plaintext, x_forwarded_for="192.0.2.7, 198.51.100.1").code == "IP_NOT_ALLOWED"


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("path", ["/gateway/authorize", "/gateway/envoy/orders"])
def test_the_gateway_says_what_was_asked_for_and_how_it_came(issued: lifecycle.Issued, path: str) -> None:
    query, rule = "scope=orders:read", {}
    if path != "/gateway/authorize":
        query, rule = "", {"x_portal_rule": query}
    ask(query, path=path, bearer=issued.plaintext, user_agent="curl", **rule)
    drain_once(timezone.now())
    source = Source.objects.get()
    assert (source.user_agent, source.browser_at, source.plain_at) == ("curl", None, None)
    page = {"origin": "https://shop.example", "x_forwarded_proto": "http", "user_agent": "curl"}
    ask(query, path=path, bearer=issued.plaintext, **page, **rule)
    drain_once(timezone.now())
    source.refresh_from_db()
    assert source.calls == 2
    assert source.browser_at == source.plain_at == source.last_seen
    assert [use.scope for use in ScopeUse.objects.all()] == ["orders:read"]


def test_callers_outside_the_gateway_networks_are_turned_away(issued: lifecycle.Issued) -> None:
    answer = ask(bearer=issued.plaintext, peer="203.0.113.9", x_forwarded_for="127.0.0.1")
    assert (answer.status, answer.code) == (403, "IP_NOT_ALLOWED")
    assert "GATEWAY_NETWORKS" in answer.problem["detail"]
    assert answer.headers["X-Portal-Key"] == ""
    assert rollups() == {}


@pytest.mark.parametrize("path", ["/gateway/", "/gateway/authorize/", "/gateway/envoyx", "/gateway/x"])
def test_other_paths_are_bad_requests(directory: Directory, path: str) -> None:
    assert ask(path=path).code == "BAD_REQUEST"


@pytest.mark.parametrize(
    "query",
    [
        "unknown=1",
        "cost=1&cost=1",
        "environment=live&environment=live",
        "deny=403&deny=403",
        "cost=-1",
        "cost=",
        "cost=1.5",
        "cost=2147483649",
        "cost=99999999999999999999",
        "cost=%D9%A1",
        "meter=unknown",
        "hold=",
        "hold=2",
        "hold=true",
        "hold=1&hold=1",
        "scope=NoScope",
        "scope=",
        "environment=",
        "environment=prod",
        "deny=404",
        "resource=" + "a" * 129,
        "resource=a%00b",
        "resource=a%0Ab",
        "resource=lk_live_0123456789abcdef",
        "resource=%ff",
        "scope",
        "&&",
        "scope=a:b;cost=2",
        "a" * 5000,
    ],
)
def test_a_bad_rule_is_refused_before_any_key(issued: lifecycle.Issued, query: str) -> None:
    answer = ask(query, bearer=issued.plaintext)
    assert (answer.headers["X-Portal-Status"], answer.code) == ("400", "BAD_REQUEST")
    assert answer.headers["X-Portal-Request"]


# --- meters ---------------------------------------------------------------------------------------


def test_a_meter_counts_from_its_creation_to_its_end(
    directory: Directory, issued: lifecycle.Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    def code() -> str:
        with django_assert_num_queries(0):
            return ask("meter=tokens&cost=250", bearer=issued.plaintext).code

    assert [code(), code()] == ["BAD_REQUEST", "BAD_REQUEST"]
    tokens = meter("tokens")
    directory.refresh()
    assert [code(), code()] == ["VALID", "VALID"]
    definitions.archive_meter(lifecycle.command_actor(), tokens, now=timezone.now())
    directory.refresh()
    assert [code(), code()] == ["BAD_REQUEST", "BAD_REQUEST"]

    drain_once(timezone.now())
    assert [(row.meter, row.calls, row.quantity) for row in Rollup.objects.all()] == [("tokens", 2, 500)]


def test_a_meter_that_counts_takes_one_a_call(directory: Directory, issued: lifecycle.Issued) -> None:
    meter("jobs", aggregation="count")
    directory.refresh()
    for rule in ("meter=jobs&cost=250", "meter=jobs&cost=0", "meter=jobs"):
        assert ask(rule, bearer=issued.plaintext).status == 200
    assert ask("meter=jobs&cost=9", bearer=issued.plaintext, method="HEAD").status == 200
    assert rollups() == {"VALID": (4, 2)}


def test_a_rule_that_was_read_while_the_meters_changed_is_read_again(
    issued: lifecycle.Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rules.meter

    def overtaken(name: str) -> str:
        """The old answer, and the meter is there before it is remembered."""
        monkeypatch.setattr(rules, "meter", real)
        try:
            return real(name)
        finally:
            meter("tokens")
            meters.reload()

    monkeypatch.setattr(rules, "meter", overtaken)
    assert ask("meter=tokens", bearer=issued.plaintext).code == "BAD_REQUEST"
    assert ask("meter=tokens", bearer=issued.plaintext).code == "VALID"


def test_a_meter_that_cannot_be_known_yet_is_unavailable_and_no_bug(
    issued: lifecycle.Issued, caplog: pytest.LogCaptureFixture
) -> None:
    meters.forget()
    meters.follow()
    answer = ask("meter=tokens&deny=403", bearer=issued.plaintext)
    assert (answer.status, answer.headers["X-Portal-Status"], answer.code) == (403, "503", "UNAVAILABLE")
    assert ask(bearer=issued.plaintext).status == 200
    assert caplog.records == []


def test_a_good_rule_is_read() -> None:
    assert parse_rule("hold=1", 0).hold
    rule = parse_rule("scope=a:b&scope=c:d&cost=2147483648&resource=%C3%A9%20x&environment=test&deny=403", 0)
    assert rule == (("a:b", "c:d"), "test", 2**31, "requests", "é x", 403, False, "")


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


def test_headers_without_measure_are_not_remembered(directory: Directory) -> None:
    names = "user_agent", "x_forwarded_for", "x_original_method", "x_forwarded_method", "x_api_key"

    def ask_at_length(letter: str) -> None:
        long = letter * 1_000_000
        headers = dict.fromkeys((*names, "x_portal_rule"), long)
        for path in ("/gateway/authorize", "/gateway/envoy/", f"/gateway/{long}"):
            ask(f"resource={long}", path=path, method=long, **headers)

    ask_at_length("a")  # what is made once is made
    tracemalloc.start()
    try:
        for letter in "bcdefghijklmnopqrstuvwxyz":
            ask_at_length(letter)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2_000_000
