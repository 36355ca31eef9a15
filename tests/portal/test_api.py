"""The machine API: what it answers about keys, whom it refuses, and that nothing makes it stumble."""

import datetime as dt
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings

from keys import lifecycle, networks, tokens
from keys.directory import Directory
from keys.networks import compile_networks
from keys.permissions import Role
from keys.verdicts import Code
from portal import server, wsgi
from portal.api import answers
from tests import builders
from tests.portal.api import Portal, application, make_portal, problem, verify
from usage import definitions, metering, meters
from usage.drain import drain_once
from usage.models import ResponseRollup, Rollup, SecretUse

pytestmark = pytest.mark.django_db


@pytest.fixture
def portal(journal_dir: Path) -> Iterator[Portal]:
    yield make_portal(Directory(process_id="test", lock_dir=journal_dir))
    metering.stop()


def me(credential: str, **headers: str) -> Any:  # the test client's response
    return Client().get("/v1/me", headers={"Authorization": f"Bearer {credential}"} | headers)


def counted() -> dict[tuple[str, str, str], tuple[int, int]]:
    """(key, resource, outcome) → calls, quantity."""
    drain_once(timezone.now())
    return {
        (row.key.name, row.resource, row.outcome): (row.calls, row.quantity)
        for row in Rollup.objects.select_related("key")
    }


# --- POST /v1/keys/verify: the verdict -------------------------------------------------------------


def test_a_valid_key_is_described(portal: Portal) -> None:
    response = verify(portal, scopes=["orders:read"], environment="live", ip="192.0.2.1")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    answer = response.json()
    assert answer.pop("request") != response.headers["X-Portal-Request"] != ""
    expires_at = dt.datetime.fromisoformat(answer["key"].pop("expires_at"))
    stored = portal.asked.key.expires_at
    assert stored is not None
    assert abs(expires_at - stored) < dt.timedelta(milliseconds=1)
    assert answer == {
        "valid": True,
        "code": "VALID",
        "detail": "The key is valid.",
        "key": {
            "id": portal.asked.key.public_id,
            "name": "Backend",
            "environment": "live",
            "scopes": ["orders:read", "orders:write"],
            "metadata": {"team": "maps"},
        },
        "organization": {"slug": "acme", "name": "Acme"},
    }


def test_a_key_without_an_end_says_null(portal: Portal) -> None:
    endless = portal.key("globex", expires_at=None)
    assert verify(portal, {"key": endless.plaintext}).json()["key"]["expires_at"] is None


def test_one_call_verifies_limits_and_counts(portal: Portal) -> None:
    limited = portal.key("globex", name="Limited", rates=["10/hour"])
    body = {"key": limited.plaintext, "cost": 4, "resource": "orders", "ip": "192.0.2.7"}
    rooms = [verify(portal, body).json() for _ in range(3)]
    assert [room["code"] for room in rooms] == ["VALID", "VALID", "RATE_LIMITED"]
    assert "retry_after" not in rooms[0]
    assert rooms[2]["retry_after"] == rooms[2]["rate_limit"]["reset"]
    assert [room["valid"] for room in rooms] == [True, True, False]
    assert [room["rate_limit"]["remaining"] for room in rooms] == [6, 2, 2]
    assert rooms[0]["rate_limit"]["limit"] == 10
    assert 0 < rooms[0]["rate_limit"]["reset"] <= 3600
    assert counted() == {
        ("Limited", "orders", "VALID"): (2, 8),
        ("Limited", "orders", "RATE_LIMITED"): (1, 0),
        ("Our API", "/v1/keys/verify", "VALID"): (3, 0),
    }
    assert SecretUse.objects.get(secret=limited.secret).address == "192.0.2.7"


def test_a_brownout_says_when_it_ends(portal: Portal) -> None:
    asked = builders.in_brownout("globex")
    portal.directory.refresh()
    response = verify(portal, {"key": asked.plaintext})
    assert (response.status_code, response.json()["code"]) == (200, "BROWNOUT")
    assert 1 <= response.json()["retry_after"] <= 120
    assert response.headers["Retry-After"] == str(response.json()["retry_after"])


def test_a_quota_is_kept_and_told(portal: Portal) -> None:
    limited = portal.key("globex", name="Limited", quotas=["10/month"])
    rooms = [verify(portal, {"key": limited.plaintext, "cost": 4}).json() for _ in range(3)]
    assert [room["code"] for room in rooms] == ["VALID", "VALID", "QUOTA_EXCEEDED"]
    assert [(room["quota"]["limit"], room["quota"]["remaining"]) for room in rooms] == [
        (10, 6),
        (10, 2),
        (10, 2),
    ]
    assert "begins anew" in rooms[2]["detail"]
    assert 0 < rooms[0]["quota"]["reset"] <= 31 * 86_400
    own = me(limited.plaintext).json()["quota"]
    assert (own["limit"], own["remaining"]) == (10, 2)
    assert "quota" not in verify(portal).json()


def test_calls_to_the_api_neither_bill_nor_spend(portal: Portal) -> None:
    own = portal.key("globex", name="Own", rates=["1/hour"])
    for _ in range(3):
        assert me(own.plaintext).json()["rate_limit"]["remaining"] == 1
    assert counted() == {("Own", "/v1/me", "VALID"): (3, 0)}
    assert verify(portal, {"key": own.plaintext}).json()["code"] == "VALID"


@pytest.mark.parametrize(
    ("act", "code"),
    [("revoke", "REVOKED"), ("disable", "DISABLED"), ("suspend", "ORGANIZATION_SUSPENDED")],
)
def test_a_refusal_is_a_200_that_says_so(portal: Portal, act: str, code: str) -> None:
    actor, now, key = lifecycle.command_actor(), timezone.now(), portal.asked.key
    if act == "revoke":
        lifecycle.revoke_key(actor, key, now=now)
    elif act == "disable":
        lifecycle.disable_key(actor, key, now=now)
    else:
        lifecycle.suspend_organization(actor, key.organization, reason="unpaid", now=now)
    portal.directory.refresh()
    answer = verify(portal).json()
    assert (answer["valid"], answer["code"], answer["detail"]) == (False, code, Code[code].sentence)
    assert answer["key"]["id"] == key.public_id
    assert answer["organization"]["slug"] == "acme"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"scopes": ["orders:read", "billing:read"]}, "INSUFFICIENT_SCOPE"),
        ({"environment": "test"}, "ENVIRONMENT_MISMATCH"),
    ],
)
def test_what_the_key_lacks_is_told(portal: Portal, asked: dict[str, Any], code: str) -> None:
    response = verify(portal, **asked)
    assert (response.status_code, response.json()["code"]) == (200, code)


@pytest.mark.parametrize("credential", ["", "junk", "lk_live_\0", " ", "x" * 600, "é\u202e"])
def test_what_is_no_key_is_a_verdict_and_says_nothing_of_any(portal: Portal, credential: str) -> None:
    response = verify(portal, {"key": credential})
    assert response.status_code == 200
    assert response.json()["code"] == ("MALFORMED" if credential else "MISSING_CREDENTIAL")
    assert not response.json().keys() & {"key", "organization", "rate_limit", "quota"}


def test_a_key_that_never_was_is_unknown(portal: Portal) -> None:
    assert verify(portal, {"key": tokens.mint("lk", "live").plaintext}).json()["code"] == "UNKNOWN"


def test_a_key_limited_to_networks_needs_the_address(portal: Portal) -> None:
    bound = portal.key("globex", networks=["192.0.2.0/24", "2001:db8::/32"])
    body = {"key": bound.plaintext}
    without = verify(portal, body).json()
    assert without["code"] == "IP_NOT_ALLOWED"
    assert "say in ip" in without["detail"]
    assert verify(portal, body | {"ip": "192.0.2.9"}).json()["code"] == "VALID"
    assert verify(portal, body | {"ip": "::ffff:192.0.2.9"}).json()["code"] == "VALID"
    assert verify(portal, body | {"ip": "2001:DB8:0::1"}).json()["code"] == "VALID"
    elsewhere = verify(portal, body | {"ip": "198.51.100.1"}).json()
    assert elsewhere["detail"] == "This API key may not be used from 198.51.100.1."


def test_null_is_as_good_as_absent(portal: Portal) -> None:
    nulls: dict[str, Any] = dict.fromkeys(["scopes", "ip", "environment", "cost", "meter", "resource"])
    assert verify(portal, **nulls).json()["code"] == "VALID"


def test_what_cannot_be_known_about_the_key_is_said_with_200(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget for keys that memory does not know is spent: the caller is fine, the answer is not known."""
    monkeypatch.setattr(portal.directory, "will_not_ask", lambda: True)
    response = verify(portal, {"key": tokens.mint("lk", "live").plaintext})
    assert (response.status_code, response.json()["code"]) == (200, "UNAVAILABLE")
    assert response.json()["valid"] is False


def test_a_warm_key_costs_no_query_and_no_session(
    portal: Portal, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    verify(portal)
    with django_assert_num_queries(0):
        assert verify(portal).status_code == 200
        assert verify(portal, {"key": "junk"}).status_code == 200
        assert verify(portal, "{").status_code == 400
        assert me(portal.asked.plaintext).status_code == 200
        assert me("junk").status_code == 401


def test_a_browsers_session_means_nothing(
    portal: Portal, client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    builders.signed_in(client, builders.staff())
    with django_assert_num_queries(0):  # it is not even read
        response = client.get("/v1/me")
        problem(client.get("/v1/nope"), 404, "NOT_FOUND")
        problem(client.put("/v1/me"), 405, "METHOD_NOT_ALLOWED")
    problem(response, 401, "MISSING_CREDENTIAL")
    assert "Set-Cookie" not in response.headers
    assert "Cookie" not in verify(portal).headers.get("Vary", "")


# --- who calls -------------------------------------------------------------------------------------


def test_the_caller_needs_the_scope(portal: Portal) -> None:
    response = Client().post(
        "/v1/keys/verify",
        {"key": portal.asked.plaintext},
        content_type="application/json",
        headers={"X-API-Key": portal.asked.plaintext},
    )
    body = problem(response, 403, "INSUFFICIENT_SCOPE")
    assert body["detail"] == "Missing scope: portal:verify."


def test_only_staff_and_commands_grant_it(portal: Portal, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(lifecycle.Invalid):
        lifecycle.create_key(
            lifecycle.member_actor(
                (alice := builders.user("alice")),
                builders.member(alice, portal.asked.key.organization, Role.ADMIN),
            ),
            portal.asked.key.organization,
            name="Sneaky",
            scopes=["portal:verify"],
            now=timezone.now(),
        )
    call_command("create_key", organization="acme", name="Granted", scope=["portal:verify"])
    portal.directory.refresh()
    assert me(capsys.readouterr().out.strip()).json()["key"]["scopes"] == ["portal:verify"]


def test_no_key_a_bad_one_and_two(portal: Portal) -> None:
    url = "/v1/me"
    assert problem(Client().get(url), 401, "MISSING_CREDENTIAL")["request"]
    problem(me("junk"), 401, "MALFORMED")
    problem(me(tokens.mint("lk", "live").plaintext), 401, "UNKNOWN")
    problem(
        me(portal.asked.plaintext, **{"X-API-Key": portal.verifier.plaintext}), 400, "MULTIPLE_CREDENTIALS"
    )
    assert me("somebody.elses.token", **{"X-API-Key": portal.asked.plaintext}).status_code == 200


def test_a_key_in_the_url_is_none(portal: Portal, settings: Settings) -> None:
    settings.KEY_QUERY_PARAMETER = "api_key"
    problem(Client().get(f"/v1/me?api_key={portal.asked.plaintext}"), 401, "MISSING_CREDENTIAL")


def test_a_revoked_caller_is_refused(portal: Portal) -> None:
    lifecycle.revoke_key(lifecycle.command_actor(), portal.verifier.key, now=timezone.now())
    portal.directory.refresh()
    problem(verify(portal), 401, "REVOKED")
    problem(me(portal.verifier.plaintext), 401, "REVOKED")


def test_the_callers_own_networks_count_and_the_gateways_do_not(portal: Portal, settings: Settings) -> None:
    settings.GATEWAY_NETWORKS = ["10.0.0.0/8"]
    assert me(portal.asked.plaintext).status_code == 200
    bound = portal.key("globex", networks=["192.0.2.0/24"])
    assert "127.0.0.1" in problem(me(bound.plaintext), 403, "IP_NOT_ALLOWED")["detail"]
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    assert me(bound.plaintext, **{"X-Forwarded-For": "192.0.2.7"}).status_code == 200


def test_memory_that_is_too_old_is_503_and_never_401(journal_dir: Path) -> None:
    metering.start(Directory(process_id="cold", lock_dir=journal_dir))
    for credential in ("junk", tokens.mint("lk", "live").plaintext):
        problem(me(credential), 503, "UNAVAILABLE")


def test_a_journal_that_fails_lets_nothing_pass(portal: Portal, journal_dir: Path) -> None:
    (journal_dir.parent / "file").write_text("")
    process = metering._current()
    process.journal.close()
    process.journal.directory = journal_dir.parent / "file"
    problem(verify(portal), 503, "UNAVAILABLE")


# --- GET /v1/me ------------------------------------------------------------------------------------


def test_a_key_learns_what_it_is_and_may_do(portal: Portal) -> None:
    own = portal.key(
        "globex", name="Own", environment="test", scopes=("orders:read",), rates=["5/hour", "9/minute"],
        networks=["127.0.0.0/8", "2001:db8::/32"], expires_at=None,
    )  # fmt: skip
    answer = me(own.plaintext).json()
    assert answer["key"] == {
        "id": own.key.public_id,
        "name": "Own",
        "environment": "test",
        "scopes": ["orders:read"],
        "expires_at": None,
        "metadata": {},
        "networks": ["127.0.0.0/8", "2001:db8::/32"],
    }
    assert answer["organization"] == {"slug": "globex", "name": "Globex"}
    assert (answer["rate_limit"]["limit"], answer["rate_limit"]["remaining"]) == (5, 5)
    assert "rate_limit" not in me(portal.asked.plaintext).json()


@given(st.lists(st.ip_addresses().map(str).map(networks.normalise), max_size=5))
def test_networks_are_written_as_they_were_read(texts: list[str]) -> None:
    assert networks.as_text(compile_networks(texts)) == texts


# --- what is no call -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "location"),
    [
        ({"key": None}, "body/key"),
        ({"key": 1}, "body/key"),
        ({"key": ["a"]}, "body/key"),
        ({"scopes": "orders:read"}, "body/scopes"),
        ({"scopes": ["orders:read", "Orders"]}, "body/scopes/1"),
        ({"scopes": [7]}, "body/scopes/0"),
        ({"scopes": ["a:b"] * 101}, "body/scopes"),
        ({"ip": "192.0.2.1:80"}, "body/ip"),
        ({"ip": "192.0.2.0/24"}, "body/ip"),
        ({"ip": "fe80::1%eth0"}, "body/ip"),
        ({"ip": ""}, "body/ip"),
        ({"environment": "prod"}, "body/environment"),
        ({"cost": -1}, "body/cost"),
        ({"cost": 2**31 + 1}, "body/cost"),
        ({"cost": 10**300}, "body/cost"),
        ({"cost": 1.5}, "body/cost"),
        ({"cost": "1"}, "body/cost"),
        ({"cost": True}, "body/cost"),
        ({"meter": "unknown"}, "body/meter"),
        ({"resource": "a\nb"}, "body/resource"),
        ({"resource": "\0"}, "body/resource"),
        ({"resource": "\ud800"}, "body/resource"),
        ({"resource": "a" * 129}, "body/resource"),
        ({"unknown": 1}, "body"),
    ],
)
def test_a_wrong_field_is_422_and_is_named(portal: Portal, change: dict[str, Any], location: str) -> None:
    body = problem(verify(portal, **change), 422, "INVALID")
    assert location in [error["location"] for error in body["errors"]]
    assert all(error["message"] for error in body["errors"])


def test_a_meter_that_staff_defined_is_taken_until_it_is_archived(portal: Portal) -> None:
    jobs = builders.meter("jobs", aggregation="count")
    meters.reload()
    assert verify(portal, meter="jobs", cost=250).json()["code"] == "VALID"
    definitions.archive_meter(lifecycle.command_actor(), jobs, now=timezone.now())
    meters.reload()
    problem(verify(portal, meter="jobs"), 422, "INVALID")
    assert counted()["Backend", "", "VALID"] == (1, 1)


def test_a_meter_that_cannot_be_known_yet_is_unavailable(portal: Portal) -> None:
    meters.forget()
    meters.follow()
    problem(verify(portal, meter="jobs"), 503, "UNAVAILABLE")
    assert verify(portal).json()["code"] == "VALID"


@pytest.mark.parametrize("body", ["[]", "null", "1", '"text"', "true", "{}", ""])
def test_json_that_is_no_call_is_422(portal: Portal, body: str) -> None:
    problem(verify(portal, body), 422, "INVALID")


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "{'key': 'a'}",
        '{"key": "a", "key": "b"}',
        '{"key": "a", "cost": NaN}',
        '{"key": "a", "cost": -Infinity}',
        '{"key": "a", "cost": ' + "9" * 5000 + "}",
        '{"key": "a"} ',
        '{"key": "a"}x',
        b"\xff\xfe",
        b'{"key": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"key": "a"}'.encode("utf-16"),
        "[" * 100_000,
        '{"a":' * 100_000,
        b"\0",
        b"\x1f\x8b\x08\x00",
        "key=a",
    ],
)
def test_what_is_no_json_is_400(portal: Portal, body: str | bytes) -> None:
    if body == '{"key": "a"} ':  # white space around it is allowed
        assert verify(portal, body).status_code == 200
    else:
        problem(verify(portal, body), 400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
    ],
)
def test_another_content_type_is_415(portal: Portal, kind: str) -> None:
    response = verify(portal, '{"key": "a"}', kind=kind)
    problem(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert response.headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;x=y"]
)
def test_json_by_any_of_its_names(portal: Portal, kind: str) -> None:
    assert verify(portal, '{"key": "a"}', kind=kind).status_code == 200


def served(portal: Portal, **environ: object) -> HttpResponse:
    """The answer of the server's callable to a call of the verifier's."""
    body = environ.pop("body", b'{"key": "a"}')
    assert isinstance(body, bytes)
    request = RequestFactory().post("/v1/keys/verify", body, content_type="application/json").environ
    request |= {"HTTP_AUTHORIZATION": f"Bearer {portal.verifier.plaintext}"} | environ
    response = HttpResponse()

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        response.status_code = int(status[:3])
        for name, value in headers:
            response.headers[name] = value

    response.content = b"".join(application(request, start))
    return response


@pytest.mark.parametrize("kind", ["application/json; charset=utf-16", "text/plain; a*=x''%ff"])
def test_a_content_type_that_django_cannot_read_is_400(portal: Portal, kind: str) -> None:
    problem(served(portal, CONTENT_TYPE=kind), 400, "BAD_REQUEST")


def test_a_compressed_body_is_415(portal: Portal) -> None:
    problem(served(portal, HTTP_CONTENT_ENCODING="gzip"), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert served(portal, HTTP_CONTENT_ENCODING="identity").status_code == 200


def test_a_body_of_a_mebibyte_is_read_and_a_larger_one_is_413(portal: Portal, settings: Settings) -> None:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    start, end = '{"key": "', '"}'
    body = start + "a" * (limit - len(start) - len(end)) + end
    assert verify(portal, body).json()["code"] == "MALFORMED"
    problem(verify(portal, body + " "), 413, "TOO_LARGE")


def test_a_body_that_ends_too_early_is_400(portal: Portal) -> None:
    class Broken(io.BytesIO):
        def read(self, *args: object) -> bytes:
            raise OSError("the client went away")

    problem(served(portal, **{"wsgi.input": Broken(), "CONTENT_LENGTH": "99"}), 400, "BAD_REQUEST")


@pytest.mark.parametrize("path", ["/v1/", "/v1/nope", "/v1/me/", "/v1/keys/verify/x", "/v1//me", "/v1/\0"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404(portal: Portal, path: str, method: str) -> None:
    problem(Client(enforce_csrf_checks=True).generic(method, path), 404, "NOT_FOUND")


@pytest.mark.parametrize(("path", "allow"), [("/v1/me", "GET"), ("/v1/keys/verify", "POST")])
def test_another_method_is_405_and_says_which(portal: Portal, path: str, allow: str) -> None:
    for method in {"GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"} - {allow}:
        response = Client(enforce_csrf_checks=True).generic(method, path)
        assert (response.status_code, response.headers["Allow"]) == (405, allow)
        if method != "HEAD":
            problem(response, 405, "METHOD_NOT_ALLOWED")


def test_a_host_that_is_not_ours_is_a_problem_too(portal: Portal) -> None:
    problem(me(portal.asked.plaintext, host="evil.example"), 400, "BAD_REQUEST")


def test_nothing_that_was_sent_comes_back(portal: Portal, caplog: pytest.LogCaptureFixture) -> None:
    """In whichever field, or as a field: it may be a key, and an imported one looks like nothing we know."""
    secret = "hunter2-of-another-system"
    bodies: list[object] = [
        {"key": [secret]},
        {secret: 1, "key": "a"},
        {"key": "a", "extra": {secret: secret}},
        *({"key": "a", field: secret + "\n"} for field in ("ip", "environment", "cost", "meter", "resource")),
        {"key": "a", "scopes": [secret]},
        {"key": "a", "scopes": {secret: secret}},
        f'{{"key": "{secret}',
        f'{{"{secret}": 1, "{secret}": 2}}',
        {"key": secret},
    ]
    with caplog.at_level(logging.DEBUG):
        for body in bodies:
            response = verify(portal, body)
            assert response.status_code in (200, 400, 422)
            assert "hunter2" not in response.content.decode() + repr(response.headers)
        response = Client().get("/v1/me", headers={"X-API-Key": secret, "Authorization": f"Bearer {secret}"})
        assert "hunter2" not in response.content.decode() + repr(response.headers)
    assert "hunter2" not in caplog.text


def test_a_body_full_of_errors_is_answered_in_short(portal: Portal) -> None:
    body = problem(verify(portal, scopes=["A"] * 90), 422, "INVALID")
    assert len(body["errors"]) == answers.MAX_ERRORS


def test_a_bug_is_503_and_the_log_keeps_the_secret(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(credential: str, *args: object) -> None:
        raise RuntimeError(f"cannot handle {credential}")

    monkeypatch.setattr(metering, "decide", broken)
    with caplog.at_level(logging.ERROR):
        problem(verify(portal), 503, "UNAVAILABLE")
    assert "RuntimeError" in caplog.text
    assert portal.asked.plaintext not in caplog.text
    assert portal.verifier.plaintext not in caplog.text


def test_a_bug_outside_the_api_is_a_problem_too(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr("django.middleware.common.CommonMiddleware.process_request", broken)
    client = Client(raise_request_exception=False)
    problem(client.get("/v1/me"), 503, "UNAVAILABLE")
    assert client.get("/").status_code == 500


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["key", "scopes", "ip", "environment", "cost", "meter", "resource", "x"])


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.dictionaries(fields, values) | values | st.binary(max_size=50))
def test_junk_is_never_a_5xx(portal: Portal, body: object) -> None:
    portal.directory.refresh()
    response = verify(portal, body if isinstance(body, bytes) else json.dumps(body))
    assert response.status_code in (200, 400, 422)
    if response.status_code == 200:
        assert response.json()["valid"] is False


latin1 = st.text(st.characters(max_codepoint=255), max_size=60)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(latin1, latin1, latin1, latin1, latin1)
def test_junk_around_the_body_is_never_a_5xx(
    portal: Portal, authorization: str, api_key: str, kind: str, encoding: str, forwarded: str
) -> None:
    portal.directory.refresh()
    response = served(
        portal,
        HTTP_AUTHORIZATION=authorization,
        HTTP_X_API_KEY=api_key,
        CONTENT_TYPE=kind,
        HTTP_CONTENT_ENCODING=encoding,
        HTTP_X_FORWARDED_FOR=forwarded,
        HTTP_USER_AGENT=forwarded,
        QUERY_STRING=kind,
        HTTP_COOKIE=api_key,
    )
    assert response.status_code in (400, 401)
    assert response.headers["Content-Type"] == "application/problem+json"


# --- https, documents, places ----------------------------------------------------------------------


def test_an_https_portal_redirects_and_believes_its_proxy(
    portal: Portal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 60
    monkeypatch.setattr(wsgi, "_django", get_wsgi_application())  # its middlewares read settings once
    plain = served(portal)
    assert plain.status_code == 301
    assert plain.headers["Location"].startswith("https://")
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    behind = served(portal, HTTP_X_FORWARDED_PROTO="https")
    assert behind.status_code == 200
    assert behind.headers["Strict-Transport-Security"] == "max-age=60"


def test_the_openapi_is_public_and_declares_every_error(portal: Portal) -> None:
    response = Client().get("/v1/openapi.json")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    document = response.json()
    assert document["openapi"].startswith("3.1.")
    assert document["components"]["securitySchemes"].keys() == {"bearer", "header"}
    managed = {f"/v1/keys{path}" for path in ("", "/{key_id}", "/{key_id}/rotate", "/{key_id}/revoke")}
    paths = {"/v1/keys/verify", "/v1/me", "/v1/usage/events", "/v1/usage"}
    assert document["paths"].keys() == paths | managed
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert [next(iter(each)) for each in operation["security"]] == ["bearer", "header"]
            success = "201" if operation["operationId"] == "create_key" else "200"
            declared = {success, "400", "401", "403", "429", "503"}
            declared |= {"404"} if "{key_id}" in path else set()
            declared |= {"409"} if path in managed and method != "get" else set()
            declared |= {"413", "415", "422"} if "requestBody" in operation else set()
            declared |= {"422"} if any(each["in"] == "query" for each in operation["parameters"]) else set()
            assert operation["responses"].keys() == declared
            for status, answer in operation["responses"].items():
                kind = "application/json" if status == success else "application/problem+json"
                assert list(answer["content"]) == [kind]
    told = json.dumps(document)
    assert all(code.name in told for code in Code)
    assert "plaintext" not in told


def test_there_are_no_pages_that_load_from_elsewhere(portal: Portal) -> None:
    for path in ("/v1/docs", "/v1/docs/", "/v1/redoc"):
        problem(Client().get(path), 404, "NOT_FOUND")


def test_pages_and_calls_do_not_take_each_others_places(portal: Portal) -> None:
    taken = [wsgi.PAGES] * (wsgi.PAGES.running)
    for places in taken:
        assert places.enter()
    try:
        assert served(portal).status_code == 200
    finally:
        for places in taken:
            places.leave()


def test_too_many_calls_at_once_are_503(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "CALLS", wsgi.Places(running=1, waiting=1))
    monkeypatch.setattr(wsgi, "WAIT_SECONDS", 0.01)
    assert wsgi.CALLS.enter()
    problem(served(portal), 503, "UNAVAILABLE")
    wsgi.CALLS.leave()
    for _ in range(3):  # a place is given back, by refusals too
        assert served(portal).status_code == 200
        problem(served(portal, HTTP_AUTHORIZATION="Bearer junk"), 401, "MALFORMED")


def test_places_leave_threads_to_the_gateway() -> None:
    taken = sum(places.running + places.waiting for places in (wsgi.PAGES, wsgi.CALLS))
    assert server.THREADS - taken >= 4


def test_the_api_records_no_answers_of_its_own(portal: Portal) -> None:
    verify(portal)
    counted()
    assert not ResponseRollup.objects.exists()
