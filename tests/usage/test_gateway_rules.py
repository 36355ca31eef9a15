"""What the gateway is asked: rules, methods, meters, by whom, for whom. Nothing a client sends changes it."""

import tracemalloc

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from keys import lifecycle
from keys.directory import Directory
from tests.builders import key, meter, organization
from tests.usage.gateways import ask, rollups
from usage import definitions, meters, rules
from usage.drain import drain_once
from usage.gateway import parse_rule
from usage.models import Hold, Rollup, ScopeUse, Segment, Source

pytestmark = pytest.mark.django_db


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


def test_an_envoy_rule_that_could_not_be_read_is_no_rule_at_all(issued: lifecycle.Issued) -> None:
    """The server makes bytes that are not UTF-8 into an empty value."""
    assert ask(path="/gateway/envoy/x", x_portal_rule="", bearer=issued.plaintext).code == "BAD_REQUEST"
    assert ask(path="/gateway/envoy/x", bearer=issued.plaintext).code == "VALID"


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


def test_a_good_rule_is_read() -> None:
    assert parse_rule("hold=1", 0).hold
    rule = parse_rule("scope=a:b&scope=c:d&cost=2147483648&resource=%C3%A9%20x&environment=test&deny=403", 0)
    assert rule == (("a:b", "c:d"), "test", 2**31, "requests", "é x", 403, False, "")


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
