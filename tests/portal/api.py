"""What the tests of the machine API share: a portal that knows its keys, a caller, and its calls."""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.core import signals
from django.db import close_old_connections
from django.test import Client

from keys import lifecycle
from keys.directory import Directory
from portal import wsgi
from tests import builders
from usage import metering


class Portal(NamedTuple):
    """This process's directory, refreshed by hand; the provider's own key, and a customer's."""

    directory: Directory
    verifier: lifecycle.Issued
    asked: lifecycle.Issued

    def key(self, slug: str, **fields: Any) -> lifecycle.Issued:
        """Another key, known at once; `fields` as for `builders.key`."""
        issued = builders.key(builders.organization(slug), **fields)
        self.directory.refresh()
        return issued


def make_portal(directory: Directory) -> Portal:
    """`directory` must be what this process decides with."""
    directory.refresh()
    metering.start(directory)
    verifier = builders.key(
        builders.organization("provider"), name="Our API", scopes=("portal:verify",), rates=["1000/second"]
    )
    asked = builders.key(
        builders.organization("acme"), scopes=("orders:read", "orders:write"), metadata={"team": "maps"}
    )
    directory.refresh()
    return Portal(directory, verifier, asked)


def verify(portal: Portal, body: object = None, *, kind: str = "application/json", **more: Any) -> Any:
    """One `POST /v1/keys/verify`: bytes and text as they are, anything else as JSON; about the asked key if
    no body is given. Returns the test client's response."""
    if body is None:
        body = {"key": portal.asked.plaintext} | more
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    return Client(enforce_csrf_checks=True).post(
        "/v1/keys/verify",
        body,
        content_type=kind,
        headers={"Authorization": f"Bearer {portal.verifier.plaintext}"},
    )


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The server's WSGI callable, from a peer on this machine, within the test's own transaction: the end of
    a request would close its connection, as Django's test client knows too."""
    ends = (signals.request_started, signals.request_finished)
    for signal in ends:
        signal.disconnect(close_old_connections)
    try:
        return list(wsgi.application({"REMOTE_ADDR": "127.0.0.1"} | environ, start_response))
    finally:
        for signal in ends:
            signal.connect(close_old_connections)


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem document of a response, which must be one of ours in every part."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    parsed: dict[str, Any] = json.loads(response.content)
    assert (parsed["status"], parsed["code"]) == (status, code)
    assert {"type", "title", "detail", "request"} <= parsed.keys()
    assert parsed["request"] == response.headers["X-Portal-Request"]
    assert ("WWW-Authenticate" in response.headers) == (
        status == 401 or code in ("MULTIPLE_CREDENTIALS", "INSUFFICIENT_SCOPE")
    )
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    return parsed
