"""Each recipe in its real proxy: before a real portal, and before a stub of it.

The stub shows what a proxy asks, and does what a portal never would.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from django.utils import timezone

from keys import lifecycle
from keys.lifecycle import Issued
from tests import builders
from tests.e2e import proxies
from tests.e2e.proxies import NAMES, Answer, Call, Front, Recorder
from tests.faults.server import Server
from tests.waiting import until

IDENTITY = ("Status", "Code", "Key", "Organization", "Environment", "Scopes", "Key-Expires", "Request")
SPELLINGS = ("X-Portal-{}", "X_Portal_{}", "X-Portal_{}", "X_Portal-{}", "x_portal_{}", "X.Portal.{}")
FORGED = [
    (spelling.format(name), "forged") for name in (*IDENTITY, "Rule", "Unknown") for spelling in SPELLINGS
]
KEYS_OF_OTHERS = [(name, "lk_live_forged") for name in ("X_API_Key", "X-API_Key", "X_API-Key", "x.api.key")]
PREFLIGHT = ("Access-Control-Request-Method", "PUT")

# Two servers could read each of these differently. Behind some is /orders/, whose rule is the stronger.
TRICKS = [
    "/public/../orders/1",
    "/public/..",
    "/public/./../orders/1",
    "/public/.",
    "/public/%2e%2e/orders/1",
    "/public/%2E%2e/orders/1",
    "/public/.%2e/orders/1",
    "/public/%2e./orders/1",
    "/public/..%2forders/1",
    "/public/..%2Forders/1",
    "/public/%2e%2e%2forders%2f1",
    "/public/%252e%252e/orders/1",
    "/public/..;/orders/1",
    "/public/..;x=y/orders/1",
    "/public/;/../orders/1",
    "/public/%3b/orders/1",
    r"/public/..\orders\1",
    "/public/..%5corders%5c1",
    "/public/%5C../orders/1",
    "/public//../orders/1",
    "/public//orders/1",
    "//orders/1",
    "//public/1",
    "/public/a%00/../../orders/1",
    "/public/1%00",
    "/public/#/../../orders/1",
    "/orders/../public/1",
    "/orders/..",
    "/orders//1",
    "/./orders/1",
    "/%2e/orders/1",
    "/%6frders%2f1",
    "http://api.example.com//orders/1",
    "http://api.example.com/public/../orders/1",
    "http://api.example.com/public/%2e%2e/orders/1",
]

JUNK = {
    "no request line": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a byte that ends strings": b"GET /orders/1 HTTP/1.1\r\nHost: api\r\nX-A: \x00\r\n\r\n",
    "a name with a space": b"GET /orders/1 HTTP/1.1\r\nHost: api\r\nX-Portal-Key : forged\r\n\r\n",
    "two lengths": b"PUT /orders/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "no path": b"GET orders/1 HTTP/1.1\r\nHost: api\r\n\r\n",
    "a large header": b"GET /orders/1 HTTP/1.1\r\nHost: api\r\nX-A: " + b"a" * 2**21 + b"\r\n\r\n",
    "many headers": b"GET /orders/1 HTTP/1.1\r\nHost: api\r\n" + b"X-A: a\r\n" * 2**16 + b"\r\n",
    "a long path": b"GET /orders/" + b"a" * 2**17 + b" HTTP/1.1\r\nHost: api\r\n\r\n",
}


@pytest.fixture(params=NAMES)
def proxy(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if proxies.binary(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


class Stage(NamedTuple):
    """A proxy between a stub of the portal and an API."""

    front: Front
    portal: Recorder
    api: Recorder


@contextmanager
def staged(proxy: str, folder: Path, *edits: tuple[str, str]) -> Iterator[Stage]:
    def edit(text: str) -> str:
        for old, new in edits:
            text = text.replace(old, new)
        return text

    with ExitStack() as stack:
        portal, api = (stack.enter_context(proxies.recorder()) for _ in range(2))
        portal.answers = {f"X-Portal-{name}": name.lower() for name in IDENTITY}
        api.body = b"done"
        yield Stage(
            stack.enter_context(proxies.running(proxy, folder, portal.server_port, api, edit)), portal, api
        )


@pytest.fixture
def stage(proxy: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(proxy, tmp_path) as stage:
        yield stage


class House(NamedTuple):
    """A proxy between a real portal and an API, and a key that may read orders."""

    front: Front
    portal: Server
    api: Recorder
    issued: Issued

    @property
    def bearer(self) -> tuple[str, str]:
        return "Authorization", f"Bearer {self.issued.plaintext}"

    def becomes(self, status: int, *headers: tuple[str, str]) -> Answer:
        """Ask until an act has reached the gateway, a quarter of a second at most in health."""

        def answer() -> Answer | None:
            last = self.front.ask("/orders/1", *headers)
            return last if last.status == status else None

        return until(answer, 10, why=lambda: self.front.ask("/orders/1", *headers))


@pytest.fixture
def house(transactional_db: None, proxy: str, journal_dir: Path, tmp_path: Path) -> Iterator[House]:
    issued = builders.key(builders.organization("acme"), scopes=("orders:read",))
    environment = builders.environment(TRUSTED_PROXIES="127.0.0.1/32")
    with ExitStack() as stack:
        api = stack.enter_context(proxies.recorder())
        api.body = b"done"
        portal = stack.enter_context(Server(environment, "--no-worker", log=tmp_path / "log"))
        front = stack.enter_context(proxies.running(proxy, tmp_path, portal.port, api))
        yield House(front, portal, api, issued)


def keeps_the_key(call: Call, issued: Issued) -> bool:
    """Nothing that reached the API has the key in it."""
    return issued.plaintext not in repr(call) and not call.all("Authorization") + call.all("X-API-Key")


def leaked(call: Call) -> list[str]:
    """What the client forged and the API saw."""
    return [name for name, value in call.headers if "forged" in value and name != "X-Portal-Unknown"]


def test_the_api_learns_who_calls_and_never_sees_the_key(house: House) -> None:
    key = house.issued.key
    for credential in (house.bearer, ("X-API-Key", house.issued.plaintext)):
        sent = [credential, *FORGED, ("X_API_Key", house.issued.plaintext), *KEYS_OF_OTHERS[1:]]
        body = b"whole " * 5000
        answer = house.front.ask("/orders/1?cost=0&deny=403", *sent, method="POST", body=body)
        assert (answer.status, answer.body) == (200, b"done")
        call = house.api.last
        assert (call.method, call.path, call.body) == ("POST", "/orders/1?cost=0&deny=403", body)
        assert keeps_the_key(call, house.issued)
        assert not leaked(call)
        assert call.all("X-Portal-Status") == ["200"]
        assert call.all("X-Portal-Code") == ["VALID"]
        assert call.all("X-Portal-Key") == [key.public_id]
        assert call.all("X-Portal-Organization") == ["acme"]
        assert call.all("X-Portal-Environment") == ["live"]
        assert call.all("X-Portal-Scopes") == ["orders:read"]
        assert [len(value) > 8 for value in call.all("X-Portal-Request")] == [True]
        assert not "".join(call.all("X-Portal-Rule"))

    # A client can name headers that are to be dropped on the way.
    house.api.calls.clear()
    nominated = "close, X-Portal-Key, X-Portal-Organization, X-Forwarded-For, Authorization, X-API-Key"
    answer = house.front.ask("/orders/1", house.bearer, ("Connection", nominated))
    assert answer.status in (200, 400)
    for call in house.api.calls:
        assert keeps_the_key(call, house.issued)
        assert call.all("X-Portal-Key") == [key.public_id]
        assert call.all("X-Portal-Organization") == ["acme"]


def test_refusals_reach_the_client_as_what_they_are(house: House) -> None:
    front, key, actor = house.front, house.issued.key, lifecycle.command_actor()
    missing = front.ask()
    assert (missing.status, missing.headers["www-authenticate"]) == (401, 'Bearer realm="api"')
    wrong = front.ask("/orders/1", ("Authorization", "Bearer lk_live_nonsense"))
    assert wrong.status == 401
    assert "invalid_token" in wrong.headers["www-authenticate"]
    twice = front.ask(
        "/orders/1", ("X-API-Key", house.issued.plaintext), ("Authorization", "Bearer lk_live_x")
    )
    assert twice.status == 400

    for other in (("Authorization", "Bearer lk_live_x"), ("X-API-Key", "lk_live_x")):
        mine = (other[0], other[1].replace("lk_live_x", house.issued.plaintext))
        assert front.ask("/orders/1", mine, other).status == 400
        assert front.ask("/orders/1", other, mine).status == 400

    # The method is the proxy's word, not the client's; and a preflight is one only with both of its marks.
    for name in ("X-Original-Method", "X-Forwarded-Method", "X_Original_Method", "X-HTTP-Method-Override"):
        assert front.ask("/orders/1", (name, "OPTIONS"), PREFLIGHT).status == 401
    both = ("X-Original-Method", "OPTIONS"), ("X-Forwarded-Method", "OPTIONS")
    assert front.ask("/orders/1", *both, PREFLIGHT).status == 401
    assert front.ask(method="OPTIONS").status == 401
    assert house.api.calls == []

    preflight = front.ask(
        "/orders/1", PREFLIGHT, ("Origin", "https://app.example.com"), *FORGED, method="OPTIONS"
    )
    assert preflight.status == 200
    assert house.api.last.method == "OPTIONS"
    assert house.api.last.all("Access-Control-Request-Method") == ["PUT"]
    assert "".join(house.api.last.all("X-Portal-Key") + house.api.last.all("X-Portal-Organization")) == ""
    assert not leaked(house.api.last)

    lifecycle.edit_key(actor, key, scopes=[], now=timezone.now())
    poor = house.becomes(403, house.bearer)
    assert "insufficient_scope" in poor.headers["www-authenticate"]
    assert b"INSUFFICIENT_SCOPE" in poor.body
    assert front.ask("/orders/1?scope=&cost=0", house.bearer).status == 403
    assert front.ask("/public/1", house.bearer).status == 200

    lifecycle.edit_key(actor, key, scopes=["orders:read"], rates=["1/hour"], now=timezone.now())
    limited = house.becomes(429, house.bearer)
    assert int(limited.headers["retry-after"]) > 1
    assert b"RATE_LIMITED" in limited.body
    assert front.ask("/orders/1?cost=0", house.bearer).status == 429
    assert front.ask("/orders/1", house.bearer, method="HEAD").status == 200  # costs nothing

    house.portal.kill()
    before = len(house.api.calls)
    away = front.ask("/orders/1", house.bearer)
    assert away.status in (502, 503)
    assert len(house.api.calls) == before


def test_the_client_learns_when_its_key_expires(stage: Stage) -> None:
    stage.portal.answers["X-Portal-Key-Expires"] = "2026-06-15T12:00:00Z"
    forged = ("X-Portal-Key-Expires", "forged")
    for path in ("/orders/1", "/public/1"):
        assert stage.front.ask(path, forged).headers["x-portal-key-expires"] == "2026-06-15T12:00:00Z"
    stage.portal.answers["X-Portal-Key-Expires"] = ""
    assert stage.front.ask("/orders/1", forged).headers.get("x-portal-key-expires", "") == ""
    stage.portal.answers["X-Portal-Key-Expires"] = "2026-06-15T12:00:00Z"
    stage.portal.answers["X-Portal-Status"] = "401"
    stage.portal.status = 401
    refused = stage.front.ask("/orders/1", forged)
    assert (refused.status, refused.headers.get("x-portal-key-expires")) in (
        (401, "2026-06-15T12:00:00Z"),
        (401, None),  # nginx answers a 401 by itself
    )


def test_a_key_limited_to_a_network_is_checked_against_the_clients_address(house: House) -> None:
    key, actor = house.issued.key, lifecycle.command_actor()
    forged = [
        (name, "203.0.113.9") for name in ("X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Forwarded")
    ]
    lifecycle.edit_key(actor, key, networks=["203.0.113.0/24"], now=timezone.now())
    house.becomes(403, house.bearer, *forged)
    lifecycle.edit_key(actor, key, networks=["127.0.0.1/32"], now=timezone.now())
    house.becomes(200, house.bearer, *forged)
    assert "203.0.113.9" not in ",".join(house.api.last.all("X-Forwarded-For"))


def test_the_portal_is_asked_by_the_proxys_own_words(stage: Stage) -> None:
    forged = [(name, "OPTIONS") for name in ("X-Original-Method", "X-Forwarded-Method", "X_Original_Method")]
    forged += [
        ("X-Original-URI", "/public/1"),
        ("X-Forwarded-Uri", "/public/1"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
    ]
    query = "/orders/1?scope=&cost=0&deny=403"
    sent = [
        ("Authorization", "Bearer lk_live_a"),
        ("X-API-Key", "lk_live_b"),
        *FORGED,
        *KEYS_OF_OTHERS,
        *forged,
    ]
    assert stage.front.ask(query, *sent, method="POST", body=b"x" * 30_000).status == 200
    asked = stage.portal.last
    assert asked.body == b""
    assert not [value for value in asked.all("Content-Length") if value not in ("", "0")]
    assert not asked.all("Transfer-Encoding")
    assert asked.all("Authorization") == ["Bearer lk_live_a"]
    assert asked.all("X-API-Key") == ["lk_live_b"]
    assert asked.all("X-Forwarded-For") == ["127.0.0.1"]
    assert asked.all("X-Forwarded-Proto") == ["http"]
    assert not [value for value in asked.all("X-Portal-Rule") if value == "forged"]
    assert not asked.all("X_Original_Method")[1:]
    rule = "scope=orders:read&resource=orders"
    if asked.path.startswith("/gateway/envoy/"):
        assert asked.method == "POST"
        assert asked.all("X-Portal-Rule") == [rule]
        assert not asked.all("X-Original-Method") + asked.all("X-Forwarded-Method")
    else:
        assert asked.path.replace("deny=403&", "") == f"/gateway/authorize?{rule}"
        assert set(asked.all("X-Original-Method") + asked.all("X-Forwarded-Method")) == {"POST"}
        assert set(asked.all("X-Original-URI") + asked.all("X-Forwarded-Uri")) == {query}
    called = stage.api.last
    assert [called.all(f"X-Portal-{name}") for name in IDENTITY] == [[name.lower()] for name in IDENTITY]
    assert len(called.body) == 30_000

    stage.front.ask("/public/1")
    weaker = stage.portal.last
    assert "resource=public" in weaker.path + "".join(weaker.all("X-Portal-Rule"))


def test_no_trick_with_the_path_reaches_the_api(stage: Stage) -> None:
    reached = {}
    for path in TRICKS:
        answer = stage.front.ask(path, ("Authorization", "Bearer lk_live_a"))
        if answer.status not in (400, 404) or stage.api.calls:
            reached[path] = answer.status, [call.path for call in stage.api.calls]
            stage.api.calls.clear()
    assert reached == {}
    if stage.front.ask("/public/1#").status != 400:
        assert stage.api.calls.pop().path == "/public/1%23"  # Caddy reads it as a character, and says so
    for path in ("/orders", "/ordersx/1", "/", "/_portal", "/gateway/authorize", "*", "/public"):
        stage.front.ask(path, method="OPTIONS" if path == "*" else "GET")
        assert stage.api.calls == [], path
    for path in ("/orders/a.b/..c/d..?x=//../;%2e", "/public/%41%20%C3%A9+~", "/orders/..."):
        assert stage.front.ask(path).status == 200
        assert stage.api.last.path == path


def test_nothing_but_the_portals_yes_lets_a_call_on(proxy: str, tmp_path: Path) -> None:
    bearer = ("Authorization", "Bearer lk_live_a")
    seen = {}
    with staged(proxy, tmp_path, ("5s", "1s"), ("5000", "1000")) as stage:
        for status in (500, 502, 503, 401, 403, 404, 302, Recorder.CLOSED, Recorder.SILENT):
            stage.portal.status = status
            seen[status] = stage.front.ask("/orders/1", bearer).status
        assert stage.api.calls == []
    assert (seen.pop(401), seen.pop(403)) == (401, 403)
    seen.pop(404)
    assert seen.pop(302) in (302, 503)
    assert [status for status in seen.values() if status < 500] == []


def test_calls_share_a_connection_to_the_portal(stage: Stage) -> None:
    for _ in range(10):
        assert stage.front.ask("/orders/1", ("Authorization", "Bearer lk_live_a")).status == 200
    assert len(stage.portal.clients) < 3


def test_haproxy_refuses_when_its_script_fails(tmp_path: Path) -> None:
    if proxies.binary("haproxy") is None:
        pytest.skip("haproxy is not installed")
    with staged("haproxy", tmp_path, ("local asked, answer = pcall", 'error("broken")')) as stage:
        assert stage.front.ask("/orders/1", ("Authorization", "Bearer lk_live_a")).status == 503
        assert stage.portal.calls + stage.api.calls == []


def test_what_is_no_request_gets_a_clear_no(stage: Stage) -> None:
    seen = {name: stage.front.raw(data).status for name, data in JUNK.items()}
    assert stage.api.calls == []
    assert {name: status for name, status in seen.items() if not 400 <= status < 500} == {}


def test_caddy_drops_names_by_a_pattern(tmp_path: Path) -> None:
    """As its recipe does. Caddy itself drops those with an underscore since 2.11.4 only, others never."""
    if proxies.binary("caddy") is None:
        pytest.skip("caddy is not installed")
    with staged("caddy", tmp_path, ("-*_*", "-*!*")) as stage:
        assert stage.front.ask("/orders/1", ("X!Portal!Key", "forged")).status == 200
        assert not leaked(stage.api.last) + leaked(stage.portal.last)
