"""`/healthz` and `/readyz`, answered beside Django, so that they say the truth when Django cannot.

Alive means that the process answers; ready means that a load balancer may send it calls. It reads state that
others keep and asks the database only where nothing else does.
"""

import json
from collections.abc import Callable

from django.db import DatabaseError, connection

from usage import metering
from usage.gateway import Environ, StartResponse
from usage.metering import Readiness

PATHS = frozenset({"/healthz", "/readyz"})


def gateway() -> Readiness:
    """May the gateway get calls? Not with keys not loaded or too old, a clock that is off, no journal."""
    return metering.readiness()


def pages() -> Readiness:
    """Can pages be served?"""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return Readiness(["the database does not answer"], [])
    finally:
        connection.close()
    return Readiness([], [])


def answer(
    environ: Environ, start_response: StartResponse, readiness: Callable[[], Readiness]
) -> list[bytes]:
    """Answer one of PATHS."""
    if environ["PATH_INFO"] == "/healthz":
        return respond(start_response, "200 OK", "text/plain", b"ok\n")
    reasons, warnings = readiness()
    facts: dict[str, object] = {"ready": not reasons, "reasons": reasons}
    if warnings:  # ready all the same
        facts["warnings"] = warnings
    body = json.dumps(facts).encode() + b"\n"
    status = "503 Service Unavailable" if reasons else "200 OK"
    return respond(start_response, status, "application/json", body)


def respond(
    start_response: StartResponse,
    status: str,
    kind: str,
    body: bytes,
    *more: tuple[str, str],
) -> list[bytes]:
    """A small answer without Django, with the headers that Django's answers have."""
    start_response(
        status,
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "same-origin"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            *more,
        ],
    )
    return [body]
