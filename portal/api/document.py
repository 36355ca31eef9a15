"""The OpenAPI document: what django-ninja knows of the operations, with security and every error declared.

It is made once and is the same for everybody.
"""

import json
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any

from django.conf import settings
from ninja import NinjaAPI

from keys.verdicts import Code
from portal.api import PREFIX
from portal.api.answers import PLAIN
from usage import problems

_ALWAYS = (400, 401, 403, 429, 503)
_WITH_BODY = (413, 415, 422)
_REFUSALS = [code.name for code in Code if code is not Code.VALID]

_PROBLEM: dict[str, Any] = {  # JSON Schema
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `request` finds the call later; it is empty where none was recorded.",
    "required": ["type", "title", "status", "detail", "code", "request"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {
            "type": "string",
            "enum": list(dict.fromkeys([*_REFUSALS, *(code for code, _ in PLAIN.values())])),
        },
        "request": {"type": "string"},
        "violated-policies": {"type": "array", "items": {"type": "string"}},
        "errors": {
            "type": "array",
            "description": "With 422: where the body is wrong, e.g. `body/scopes/0`, and why.",
            "items": {
                "type": "object",
                "required": ["location", "message"],
                "properties": {"location": {"type": "string"}, "message": {"type": "string"}},
                "additionalProperties": False,
            },
        },
    },
}
_SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of this portal"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key"},
}
_REQUEST = {
    "X-Portal-Request": {
        "description": "Finds the caller's own call later",
        "required": True,
        "schema": {"type": "string"},
    }
}
_MORE_HEADERS = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: {"Retry-After": {"required": True, "schema": {"type": "integer"}}},
    503: {"Retry-After": {"required": True, "schema": {"type": "integer"}}},
}


def declare(
    *scopes: str,
    body: bool = False,
    query: bool = False,
    status: int = 200,
    more: Iterable[int] = (),
    **others: object,
) -> dict[str, Any]:  # JSON
    """For an operation's `openapi_extra`: the scopes that its caller needs, the `status` of its success, and
    every error that it has, for it takes a `body` or a `query`, or has `more`; `others` are added as they
    are."""
    errors = sorted({*_ALWAYS, *more, *(_WITH_BODY if body else (422,) if query else ())})
    return others | {
        "security": [{name: list(scopes)} for name in _SECURITY],
        "responses": {status: {"headers": _REQUEST}} | {each: _error(each) for each in errors},
    }


def _error(status: int) -> dict[str, Any]:
    codes = [code.name for code in Code if code.status == status]
    codes += [PLAIN[status][0]] if status in PLAIN and PLAIN[status][0] not in codes else []
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "headers": _REQUEST | _MORE_HEADERS.get(status, {}),
        "content": {problems.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


@cache
def document(api: NinjaAPI) -> bytes:
    """The whole of it, as JSON."""
    schema = dict(api.get_openapi_schema(path_prefix=PREFIX))
    for path in schema["paths"].values():
        for operation in path.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                # Fields say what they are when left out, and of `expires_at` that is not null.
                if "default" in media["schema"]:
                    (media["schema"],) = media["schema"]["allOf"]
    schema["servers"] = [{"url": settings.PORTAL_URL}]
    schema["components"]["schemas"]["Problem"] = _PROBLEM
    schema["components"]["securitySchemes"] = _SECURITY
    return json.dumps(schema).encode()
