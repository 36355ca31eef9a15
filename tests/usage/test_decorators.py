"""`@require_key`: what passes, what is refused and how, and that every answer's status class is recorded."""

import asyncio
import datetime as dt
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path, re_path
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from pytest_django import DjangoAssertNumQueries, Settings

from keys import lifecycle, tokens
from keys.directory import Directory
from keys.verdicts import Code
from tests.builders import key, meter, organization
from tests.house.files import ROOT
from usage import decorators, gateway, metering, meters
from usage.decorators import KeyRequest, PortalKey, require_key
from usage.drain import drain_once
from usage.journal import Journal, JournalError
from usage.models import Hold, ResponseRollup, Rollup, Segment

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

seen: list[PortalKey] = []
RAISES = {
    "absent": Http404,
    "denied": PermissionDenied,
    "bad": BadRequest,
    "suspicious": SuspiciousOperation,
    "bug": RuntimeError,
}


@require_key("orders:read")
def orders(request: KeyRequest) -> HttpResponse:
    seen.append(request.portal_key)
    return JsonResponse({"organization": request.portal_key.organization})


@require_key()
def anything(request: HttpRequest, what: str) -> HttpResponseBase:
    if what in RAISES:
        raise RAISES[what]("on purpose")
    if what == "stream":
        return StreamingHttpResponse([b"a", b"b"])
    return HttpResponse(status=int(what))


class Rendered(SimpleTemplateResponse):
    """As Django REST framework's: its content is made after the view, and may fail then."""

    def __init__(self, what: str) -> None:
        super().__init__("none.html")
        self.what = what

    @property
    def rendered_content(self) -> str:
        if self.what in RAISES:
            raise RAISES[self.what]("on purpose")
        return self.what


@require_key()
@cache_page(60)
def rendered(request: HttpRequest, what: str) -> HttpResponse:
    return Rendered(what)


@require_key()
async def rendered_async(request: HttpRequest, what: str) -> HttpResponse:
    return Rendered(what)


@require_key(cost=lambda request: int(request.headers["X-Size"]), resource="sized", environment="test")
def sized(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


@require_key(cost=7, hold=True)
def held(request: KeyRequest) -> HttpResponse:
    return HttpResponse(request.portal_key.request)


@require_key()
def nothing(request: HttpRequest) -> None:
    return None


@require_key("orders:read")
async def waited(request: KeyRequest) -> HttpResponse:
    await asyncio.sleep(0)
    if "fail" in request.GET:
        raise RuntimeError("on purpose")
    return HttpResponse(request.portal_key.organization)


@method_decorator(require_key("orders:read"), name="dispatch")
class Orders(View):
    def get(self, request: KeyRequest) -> HttpResponse:
        return HttpResponse(request.portal_key.id)

    def post(self, request: KeyRequest) -> HttpResponse:
        return HttpResponse(status=201)


@method_decorator(require_key("orders:read"), name="dispatch")
class Waited(View):
    async def get(self, request: KeyRequest) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse(request.portal_key.id)

    async def post(self, request: KeyRequest) -> HttpResponse:
        return HttpResponse(status=201)


urlpatterns = [
    path("orders/", orders),
    path("any/<str:what>/", anything),
    path("rendered/<str:what>/", rendered),
    path("rendered-async/<str:what>/", rendered_async),
    path("sized/", sized),
    path("held/", held),
    path("nothing/", nothing),
    path("async/", waited),
    path("class/", Orders.as_view()),
    path("async-class/", Waited.as_view()),
    re_path(r"^long/(?:" + "a|" * 200 + r"b)/$", orders),
]


@pytest.fixture
def directory(journal_dir: Path) -> Iterator[Directory]:
    directory = Directory(process_id="test", lock_dir=journal_dir)
    directory.refresh()
    metering.start(directory)
    seen.clear()
    yield directory
    metering.stop()


@pytest.fixture
def issued(directory: Directory) -> lifecycle.Issued:
    made = key(organization("acme"), scopes=("orders:read", "orders:write"), metadata={"team": "maps"})
    directory.refresh()
    return made


@pytest.fixture
def caller(issued: lifecycle.Issued) -> Client:
    """Sends its key, and checks CSRF as a browser's request would be checked."""
    return Client(
        enforce_csrf_checks=True,
        raise_request_exception=False,
        headers={"Authorization": f"Bearer {issued.plaintext}"},
    )


def problem(response: Any) -> dict[str, Any]:  # any of the test clients' responses
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    parsed: dict[str, Any] = json.loads(response.content)
    assert parsed["status"] == response.status_code
    assert parsed["code"] == response.headers["X-Portal-Code"]
    assert parsed["request"] == response.headers["X-Portal-Request"]
    return parsed


def answered() -> dict[tuple[str, int], int]:
    drain_once(timezone.now())
    return {(row.resource, row.status_class): row.responses for row in ResponseRollup.objects.all()}


def counted() -> dict[str, tuple[int, int]]:
    drain_once(timezone.now())
    return {row.outcome: (row.calls, row.quantity) for row in Rollup.objects.all()}


def test_a_clients_answer_says_when_its_key_expires(directory: Directory) -> None:
    soon = timezone.now() + dt.timedelta(days=20)
    acme = organization("acme")
    for expires_at, told in ((soon, f"{soon:%Y-%m-%dT%H:%M:%SZ}"), (None, None)):
        made = key(acme, scopes=("orders:read",), expires_at=expires_at)
        directory.refresh()
        response = Client().get("/orders/", headers={"Authorization": f"Bearer {made.plaintext}"})
        assert (response.status_code, response.headers.get("X-Portal-Key-Expires")) == (200, told)


# --- allowed ---------------------------------------------------------------------------------------


def test_a_good_key_passes_and_the_view_knows_whose_it_is(issued: lifecycle.Issued, caller: Client) -> None:
    response = caller.get("/orders/")
    assert response.json() == {"organization": "acme"}
    assert seen == [
        PortalKey(
            id=issued.key.public_id,
            name="Backend",
            organization="acme",
            environment="live",
            scopes=frozenset({"orders:read", "orders:write"}),
            metadata={"team": "maps"},
            request=response.headers["X-Portal-Request"],
        )
    ]
    assert re.fullmatch(r"[0-9A-Za-z]{11}-\d+", seen[0].request)
    with pytest.raises(TypeError):
        seen[0].metadata["team"] = "other"  # type: ignore[index]  # that it cannot be set is the point
    assert {each.strip() for each in response.headers["Vary"].split(",")} >= {"Authorization", "X-API-Key"}


def test_it_costs_no_query(caller: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        assert caller.get("/orders/").status_code == 200
        assert caller.get("/orders/", headers={"Authorization": "Bearer junk"}).status_code == 401


def test_the_call_is_counted_under_its_route_and_its_answer_by_class(caller: Client) -> None:
    for what in ("200", "204", "302", "404", "503", "999"):
        caller.get(f"/any/{what}/")
    assert answered() == {("any/<str:what>/", 2): 2, **{("any/<str:what>/", n): 1 for n in (3, 4)}} | {
        ("any/<str:what>/", 5): 2
    }
    assert counted() == {"VALID": (6, 6)}
    assert Rollup.objects.get().resource == "any/<str:what>/"


@pytest.mark.parametrize(
    ("what", "status_class"), [("absent", 4), ("denied", 4), ("bad", 4), ("suspicious", 4), ("bug", 5)]
)
def test_what_a_view_raises_is_recorded_as_django_answers_it(
    caller: Client, what: str, status_class: int
) -> None:
    response = caller.get(f"/any/{what}/")
    assert response.status_code // 100 == status_class
    assert answered() == {("any/<str:what>/", status_class): 1}


@pytest.mark.parametrize("view", ["rendered", "rendered-async"])
@pytest.mark.parametrize(("what", "status"), [("fine", 200), ("absent", 404), ("bug", 500)])
def test_what_is_rendered_after_the_view_is_recorded_as_it_was_answered(
    caller: Client, view: str, what: str, status: int
) -> None:
    response = caller.get(f"/{view}/{what}/")
    assert response.status_code == status
    assert answered() == {(f"{view}/<str:what>/", status // 100): 1}


def test_what_is_rendered_after_the_view_can_be_cached(caller: Client) -> None:
    first, second = caller.get("/rendered/fine/"), caller.get("/rendered/fine/")
    assert first.content == second.content == b"fine"
    assert "Expires" in second.headers
    assert first.headers["X-Portal-Request"] != second.headers["X-Portal-Request"]
    assert answered() == {("rendered/<str:what>/", 2): 2}


def test_a_streaming_answer_is_recorded(caller: Client) -> None:
    assert b"".join(caller.get("/any/stream/").streaming_content) == b"ab"  # type: ignore[attr-defined]  # of a streaming response
    assert answered() == {("any/<str:what>/", 2): 1}


def test_a_view_that_answers_nothing_is_a_5xx(caller: Client) -> None:
    assert caller.get("/nothing/").status_code == 500
    assert answered() == {("nothing/", 5): 1}


def test_a_long_route_is_cut_to_a_label(caller: Client) -> None:
    assert caller.get("/long/b/").status_code == 200
    ((resource, _),) = answered()
    assert len(resource) == 128


def test_a_cost_can_depend_on_the_request(directory: Directory, caller: Client) -> None:
    acme = organization("globex")
    issued = key(acme, environment="test")
    directory.refresh()
    headers = {"Authorization": f"Bearer {issued.plaintext}", "X-Size": "7"}
    assert caller.get("/sized/", headers=headers).status_code == 200
    assert caller.head("/sized/", headers=headers).status_code == 200
    assert counted() == {"VALID": (2, 7)}
    # A view without a key never sees the request, and so its cost is not worked out either.
    assert Client().get("/sized/").status_code == 401
    for size in ("-1", "2147483649", "x"):
        assert caller.get("/sized/", headers=headers | {"X-Size": size}).status_code == 500
    assert counted() == {"VALID": (2, 7)}


def test_rates_are_told_and_kept(directory: Directory, caller: Client) -> None:
    limited = key(organization("globex"), scopes=("orders:read",), rates=["2/hour"])
    directory.refresh()
    headers = {"X-API-Key": limited.plaintext, "Authorization": ""}
    answers = [caller.get("/orders/", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
    assert answers[0].headers["RateLimit-Policy"] == '"key-hour";q=2;w=3600'
    assert int(answers[2].headers["Retry-After"]) > 0
    assert problem(answers[2])["violated-policies"] == ["key-hour"]
    assert len(seen) == 2
    assert answered() == {("orders/", 2): 2}  # how a refusal is answered is known from its code


def test_a_quota_is_kept(directory: Directory, caller: Client) -> None:
    limited = key(organization("globex"), scopes=("orders:read",), quotas=["2/month"])
    directory.refresh()
    headers = {"X-API-Key": limited.plaintext, "Authorization": ""}
    answers = [caller.get("/orders/", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert problem(answers[2])["violated-policies"] == ["key-month"]
    assert int(answers[2].headers["Retry-After"]) > 0
    assert len(seen) == 2


# --- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["/orders/", "/async/", "/class/", "/async-class/"])
def test_no_view_runs_without_an_allow(issued: lifecycle.Issued, url: str) -> None:
    other = tokens.mint("lk", "live").plaintext
    for headers, code in (
        ({}, "MISSING_CREDENTIAL"),
        ({"X-API-Key": "junk"}, "MALFORMED"),
        ({"X-API-Key": other}, "UNKNOWN"),
        ({"X-API-Key": other, "Authorization": f"Bearer {issued.plaintext}"}, "MULTIPLE_CREDENTIALS"),
    ):
        response: Any  # of either client
        if not url.startswith("/async"):
            response = Client().get(url, headers=headers)
        elif code == "UNKNOWN":  # a miss, asked for in another thread, is outside this test's transaction
            continue
        else:
            response = asyncio.run(AsyncClient().get(url, headers=headers))
        assert response.status_code == Code[code].status
        assert problem(response)["code"] == code
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="api"')
        assert not set(response.headers) & {"X-Portal-Key", "X-Portal-Organization", "X-Portal-Scopes"}
    assert seen == []
    assert answered() == {}


def test_it_refuses_as_the_gateway_does(issued: lifecycle.Issued, directory: Directory) -> None:
    lifecycle.revoke_key(lifecycle.command_actor(), issued.key, now=timezone.now())
    directory.refresh()
    response = Client(headers={"X-API-Key": issued.plaintext}).get("/orders/")
    started: list[Any] = []  # what WSGI passes
    body = gateway.application(
        {
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/gateway/authorize",
            "HTTP_X_API_KEY": issued.plaintext,
        },
        lambda status, headers: started.extend((status, dict(headers))),
    )
    ours, theirs = problem(response), json.loads(b"".join(body))
    assert ours.pop("request") != theirs.pop("request")
    assert ours == theirs
    for name in ("WWW-Authenticate", "Cache-Control", "Content-Type", "Content-Security-Policy"):
        assert response.headers[name] == started[1][name]


def test_a_missing_scope_and_the_other_environment(directory: Directory, caller: Client) -> None:
    poor = key(organization("globex"))
    directory.refresh()
    headers = {"Authorization": f"Bearer {poor.plaintext}", "X-Size": "1"}
    assert problem(caller.get("/orders/", headers=headers))["detail"] == "Missing scope: orders:read."
    assert problem(caller.get("/sized/", headers=headers))["code"] == "ENVIRONMENT_MISMATCH"


def test_the_client_is_who_a_trusted_proxy_says(
    directory: Directory, caller: Client, settings: Settings
) -> None:
    bound = key(organization("globex"), scopes=("orders:read",), networks=["192.0.2.0/24"])
    directory.refresh()
    headers = {"Authorization": f"Bearer {bound.plaintext}", "X-Forwarded-For": "192.0.2.7"}
    assert "127.0.0.1" in problem(caller.get("/orders/", headers=headers))["detail"]
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    assert caller.get("/orders/", headers=headers).status_code == 200


def test_a_key_in_the_url_counts_only_if_that_is_set(issued: lifecycle.Issued, settings: Settings) -> None:
    url = f"/orders/?api_key={issued.plaintext}"
    assert Client().get(url).status_code == 401
    settings.KEY_QUERY_PARAMETER = "api_key"
    assert Client().get(url).status_code == 200


@pytest.mark.parametrize("url", ["/orders/", "/class/"])
def test_a_preflight_is_answered_and_sees_no_view(issued: lifecycle.Issued, url: str) -> None:
    preflight = {"Access-Control-Request-Method": "GET", "Origin": "https://app.example.com"}
    response = Client(headers=preflight).options(url)
    assert (response.status_code, response.content) == (204, b"")
    assert seen == []
    assert counted() == {}
    assert Segment.objects.count() == 0
    assert Client().options(url).status_code == 401  # not a preflight
    assert Client(headers=preflight).get(url).status_code == 401
    with_key = Client(headers=preflight | {"X-API-Key": issued.plaintext}).options(url)
    assert with_key.status_code == 200
    assert counted()["VALID"] == (1, 0)


def test_head_costs_nothing(caller: Client) -> None:
    assert caller.head("/orders/").status_code == 200
    assert counted() == {"VALID": (1, 0)}


def test_a_call_on_hold_is_kept_by_the_id_that_the_view_has(caller: Client) -> None:
    answer = caller.get("/held/")
    assert caller.head("/held/").status_code == 200
    assert counted() == {"VALID": (2, 7)}
    assert str(Hold.objects.get()) == answer.content.decode()


def test_memory_that_is_too_old_is_503(journal_dir: Path) -> None:
    metering.start(Directory(process_id="cold", lock_dir=journal_dir))
    response = Client(headers={"X-API-Key": "junk"}).get("/orders/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert problem(response)["code"] == "UNAVAILABLE"


def test_a_bug_is_a_refusal_and_the_log_keeps_the_secret(
    caller: Client,
    issued: lifecycle.Issued,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(credential: str, *args: object) -> None:
        raise RuntimeError(f"cannot handle {credential}")

    for name in ("decide", "begins_like_ours"):
        monkeypatch.setattr(metering, name, broken)
    with caplog.at_level(logging.ERROR):
        assert problem(caller.get("/orders/"))["code"] == "UNAVAILABLE"
        assert problem(caller.get("/orders/", headers={"X-API-Key": "other"}))["code"] == "UNAVAILABLE"
    assert "RuntimeError" in caplog.text
    assert issued.plaintext not in caplog.text
    assert seen == []


def test_an_answer_that_cannot_be_recorded_goes_out(
    caller: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Journal, *args: object) -> None:
        raise JournalError("no space")

    monkeypatch.setattr(Journal, "append_response", full)
    monkeypatch.setattr(metering, "_complained", float("-inf"))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert caller.get("/orders/").status_code == 200
    assert caplog.text.count("How calls are answered cannot be recorded: no space") == 1


# --- other kinds of views --------------------------------------------------------------------------


def test_a_class_is_guarded_for_all_its_methods_without_a_csrf_token(
    issued: lifecycle.Issued, caller: Client
) -> None:
    assert caller.get("/class/").content == issued.key.public_id.encode()
    assert caller.post("/class/").status_code == 201
    assert caller.put("/class/").status_code == 405
    assert answered() == {("class/", 2): 2, ("class/", 4): 1}


def test_async_views_are_awaited(issued: lifecycle.Issued) -> None:
    headers = {"Authorization": f"Bearer {issued.plaintext}"}

    async def calls() -> list[Any]:
        client = AsyncClient(enforce_csrf_checks=True, raise_request_exception=False)
        return [
            await client.get("/async/", headers=headers),
            await client.get("/async/?fail=1", headers=headers),
            await client.get("/async-class/", headers=headers),
            await client.post("/async-class/", headers=headers),
            await client.put("/async-class/", headers=headers),
        ]

    responses = asyncio.run(calls())
    assert [response.status_code for response in responses] == [200, 500, 200, 201, 405]
    assert responses[0].content == b"acme"
    assert responses[2].content == issued.key.public_id.encode()
    assert answered() == {("async/", 2): 1, ("async/", 5): 1, ("async-class/", 2): 2, ("async-class/", 4): 1}
    assert sum(row.calls for row in Rollup.objects.all()) == 5


def test_a_view_called_without_a_route_has_no_label(issued: lifecycle.Issued) -> None:
    request = RequestFactory().get("/orders/", headers={"X-API-Key": issued.plaintext})
    assert orders(request).status_code == 200
    assert answered() == {("", 2): 1}


@pytest.mark.parametrize(
    "options",
    [
        {"environment": "prod"},
        {"cost": -1},
        {"cost": True},
        {"cost": 1.5},
        {"meter": "No meter"},
        {"resource": "a\nb"},
        {"resource": "a" * 129},
    ],
)
def test_a_rule_that_cannot_be_one_fails_where_it_is_written(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        require_key(**options)


def test_a_meter_may_be_defined_after_the_view(issued: lifecycle.Issued) -> None:
    view = require_key(meter="jobs", cost=250)(lambda request: HttpResponse())
    request = RequestFactory().get("/", headers={"X-API-Key": issued.plaintext})
    refused = view(request)
    assert (refused.status_code, problem(refused)["code"]) == (400, "BAD_REQUEST")
    meter("jobs", aggregation="count")
    meters.reload()
    assert view(request).status_code == 200
    assert counted()["VALID"] == (1, 1)


def test_a_name_that_is_no_scope_fails_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="scope"):
        require_key("Orders")
    with pytest.raises(TypeError, match="parentheses"):
        require_key(lambda request: HttpResponse())  # type: ignore[arg-type]  # the mistake that it is about


def test_the_readmes_example_runs(issued: lifecycle.Issued) -> None:
    text = (ROOT / "README.md").read_text()
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "require_key" in block
    ]
    namespace: dict[str, Any] = {}
    exec(example, namespace)  # what README says is what runs
    view = namespace["orders"]
    allowed = view(RequestFactory().get("/", headers={"Authorization": f"Bearer {issued.plaintext}"}))
    assert json.loads(allowed.content) == {"organization": "acme", "key": "Backend"}
    assert view(RequestFactory().get("/")).status_code == 401


def test_it_exempts_from_csrf_and_says_so() -> None:
    assert vars(orders)["csrf_exempt"]
    assert "CSRF" in (decorators.require_key.__doc__ or "")
