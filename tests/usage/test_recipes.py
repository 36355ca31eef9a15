"""The recipes' texts: nothing that the gateway says is forgotten, and Traefik's keeps to Traefik's contract.

Traefik is not among the tests' real proxies. What its ForwardAuth sends, takes over and strips is written in
its reference; `Traefik` below does that, by the recipe, before the real gateway.
"""

import posixpath
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from django.conf import settings
from pytest_django import Settings

from keys import lifecycle
from keys.directory import Directory
from tests import builders
from tests.usage.gateways import PORTAL_HEADERS
from usage import gateway, metering

RECIPES: Path = settings.BASE_DIR / "usage" / "recipes"
Headers = dict[str, str]


def recipe(name: str) -> str:
    return (RECIPES / name).read_text()


def parsed(name: str) -> Any:  # YAML
    return yaml.safe_load(recipe(name))


class Reached(NamedTuple):
    """What the client got, or (200) what the API was sent."""

    status: int
    path: str
    headers: Headers


class Traefik:
    """Traefik 3.7 with the recipe's two files, as its documentation describes them."""

    PEER = "192.0.2.7"

    def __init__(self) -> None:
        self.entry = parsed("traefik-static.yaml")["entryPoints"]["api"]
        http = parsed("traefik.yaml")["http"]
        self.routers, self.middlewares = http["routers"], http["middlewares"]

    def ask(self, path: str, headers: Headers, method: str = "GET") -> Reached:
        headers = {name.title(): value for name, value in headers.items()}
        # Entry point: encoded characters, sanitizing, aliasing names, the client's own X-Forwarded-*.
        raw, _, query = path.partition("?")
        assert set(self.entry["http"]["encodedCharacters"].values()) == {False}
        if re.search("%(2f|5c|00|3b|25|3f|23)", raw, re.IGNORECASE):
            return Reached(400, path, {})
        assert self.entry["http"]["sanitizePath"] is True
        clean = posixpath.normpath(unquote(raw)).replace("//", "/") + "/" * raw.endswith("/")
        assert self.entry["http"]["aliasHeadersStrategy"] == "delete"
        headers = {name: value for name, value in headers.items() if re.fullmatch("[A-Za-z0-9-]+", name)}
        assert "forwardedHeaders" not in self.entry
        headers = {name: value for name, value in headers.items() if not name.startswith("X-Forwarded-")}
        # Router, then its middlewares in order.
        for router in self.routers.values():
            if self._matches(router["rule"], clean, headers):
                break
        else:
            return Reached(404, path, {})
        for name in router["middlewares"]:
            (kind, options), *rest = self.middlewares[name].items()
            assert not rest
            if kind == "forwardAuth":
                status, answer = self._forward(options, clean + "?" * bool(query) + query, headers, method)
                if not 200 <= status < 300:
                    return Reached(status, clean, answer)
                for header in options["authResponseHeaders"]:
                    headers.pop(header.title(), None)
                    if header in answer:
                        headers[header.title()] = answer[header]
            else:
                assert kind == "headers"
                for header, value in options["customRequestHeaders"].items():
                    assert value == ""
                    headers.pop(header.title(), None)
        return Reached(200, clean, headers)

    def _matches(self, rule: str, path: str, headers: Headers) -> bool:
        for term in rule.split(" && "):
            found = re.fullmatch(r"(!?)(\w+)\((.*)\)", term)
            assert found
            said = re.findall("`([^`]*)`", found[3])
            match found[2]:
                case "PathPrefix":
                    holds = path.startswith(said[0])
                case "PathRegexp":
                    holds = re.search(said[0], path) is not None
                case other:
                    assert other == "HeaderRegexp"
                    holds = re.search(said[1], headers.get(said[0], "")) is not None
            if holds == bool(found[1]):
                return False
        return True

    def _forward(
        self, options: dict[str, Any], uri: str, headers: Headers, method: str
    ) -> tuple[int, Headers]:
        assert options.keys() == {
            "address",
            "trustForwardHeader",
            "authRequestHeaders",
            "authResponseHeaders",
        }
        assert options["trustForwardHeader"] is False
        address = urlsplit(options["address"])
        assert address.netloc == "127.0.0.1:8000"
        sent = {
            name: headers[name.title()] for name in options["authRequestHeaders"] if name.title() in headers
        }
        sent |= {"X-Forwarded-Method": method, "X-Forwarded-Uri": uri, "X-Forwarded-For": self.PEER}
        environ = {"REMOTE_ADDR": "127.0.0.1", "REQUEST_METHOD": "GET", "PATH_INFO": address.path}
        environ |= {"QUERY_STRING": address.query}
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent.items()}
        started: list[Any] = []  # what WSGI passes
        gateway.application(environ, lambda status, headers: started.extend((status, headers)))
        return int(started[0][:3]), dict(started[1])


@pytest.fixture
def directory(db: None, settings: Settings, journal_dir: Path) -> Directory:
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    directory = Directory(process_id="test", lock_dir=journal_dir)
    metering.start(directory)
    return directory


@pytest.fixture
def issued(directory: Directory) -> lifecycle.Issued:
    """A key that reads orders, from the network of Traefik's client alone."""
    made = builders.key(builders.organization("acme"), scopes=("orders:read",), networks=["192.0.2.0/24"])
    directory.refresh()
    return made


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile", "haproxy-portal.lua", "traefik.yaml"])
def test_every_header_of_the_gateway_is_taken_from_it(name: str) -> None:
    text = recipe(name)
    if name == "haproxy-portal.lua":
        said = set(re.findall('"([a-z-]+)"', text.partition("IDENTITY = {")[2].partition("}")[0]))
        found = {f"X-Portal-{each.title()}" for each in said}
    elif name == "nginx.conf":
        found = set(re.findall(r"proxy_set_header (X-Portal-[\w-]+) +\$portal_", text))
    elif name == "Caddyfile":
        found = set(text.partition("copy_headers ")[2].partition("\n")[0].split())
    else:
        found = set(
            parsed(name)["http"]["middlewares"]["portal-orders"]["forwardAuth"]["authResponseHeaders"]
        )
    assert found == PORTAL_HEADERS


def test_traefik_tells_the_api_who_calls_and_keeps_the_key(issued: lifecycle.Issued) -> None:
    forged = dict.fromkeys(
        [*PORTAL_HEADERS, "X-Portal-Rule", "X_Portal_Key", "X.Portal.Key", "X_API_Key"], "forged"
    )
    for credential in ({"Authorization": f"Bearer {issued.plaintext}"}, {"X-API-Key": issued.plaintext}):
        reached = Traefik().ask(
            "/orders/1?cost=0&deny=403", credential | forged | {"X-Forwarded-For": "203.0.113.9"}
        )
        assert reached.status == 200
        assert "forged" not in reached.headers.values()
        assert issued.plaintext not in repr(reached)
        assert reached.headers["X-Portal-Organization"] == "acme"
        assert reached.headers["X-Portal-Key"] == issued.key.public_id
        assert reached.headers["X-Portal-Scopes"] == "orders:read"


def test_traefik_passes_refusals_on(issued: lifecycle.Issued, directory: Directory) -> None:
    missing = Traefik().ask("/orders/1", {})
    assert (missing.status, missing.headers["WWW-Authenticate"]) == (401, 'Bearer realm="api"')
    both = {"X-API-Key": issued.plaintext, "Authorization": "Bearer lk_live_other"}
    assert Traefik().ask("/orders/1", both).status == 400
    poor = {"X-API-Key": builders.key(issued.key.organization, rates=["1/hour"]).plaintext}
    directory.refresh()
    assert Traefik().ask("/orders/1", poor).status == 403
    assert Traefik().ask("/public/1", poor).status == 200
    assert int(Traefik().ask("/public/1", poor).headers["Retry-After"]) > 0
    assert Traefik().ask("/public/1", poor, method="HEAD").status == 200  # costs nothing


def test_a_preflight_passes_traefik_and_a_forged_one_does_not(issued: lifecycle.Issued) -> None:
    asks = {"Access-Control-Request-Method": "PUT"}
    preflight = Traefik().ask("/orders/1", asks | {"X-Portal-Key": "forged"}, method="OPTIONS")
    assert (preflight.status, preflight.headers["X-Portal-Key"]) == (200, "")
    for name in ("X-Original-Method", "X-Forwarded-Method", "X_Original_Method"):
        assert Traefik().ask("/orders/1", asks | {name: "OPTIONS"}).status == 401


def test_no_path_makes_traefik_choose_the_weaker_rule(issued: lifecycle.Issued) -> None:
    poor = {"X-API-Key": issued.plaintext}
    for path in ("/public/../orders/1", "/public/%2e%2e/orders/1", "//orders/1", "/public/..%2forders/1"):
        reached = Traefik().ask(path, poor)
        assert reached.status in (400, 404) or reached.path == "/orders/1", path
    for path in (
        "/public/..;/orders/1",
        "/public/;/1",
        "/public/..\\orders\\1",
        "/public/%3b",
        "/other/1",
        "/orders",
    ):
        assert Traefik().ask(path, poor).status in (400, 404), path
    dropping = {"Connection": "close, X-Portal-Key"}
    assert Traefik().ask("/orders/1", poor | dropping).status == 404
