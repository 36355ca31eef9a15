"""Calls of a proxy to the gateway, and what it answers."""

import json
from typing import Any, NamedTuple

from django.utils import timezone

from usage import gateway
from usage.drain import drain_once
from usage.models import Rollup

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


def rollups() -> dict[str, tuple[int, int]]:
    drain_once(timezone.now())
    return {row.outcome: (row.calls, row.quantity) for row in Rollup.objects.all()}
