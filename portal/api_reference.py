"""The machine API's operations as the docs show them, read from the OpenAPI document that is served.

It adds nothing to the document but an example of each body, and asks nothing of the database.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from django.conf import settings

from keys.verdicts import Code
from portal.api.document import document
from portal.api.urls import api

# JSON, as the OpenAPI document has it.
type Json = Mapping[str, Any]

_GROUPS: Final = {"me": "The key itself", "keys": "Keys", "usage": "Usage"}
_NAMES: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_DEPTH: Final = 2  # objects within objects that are listed field by field
_KEY: Final = "key_4kDfZ0aQ9sLmX2cV"
_BODIES: Final[Mapping[str, Json]] = {
    "create_key": {"name": "Worker", "scopes": []},
    "edit_key": {"name": "Worker 2", "networks": ["203.0.113.0/24"]},
    "rotate_key": {"overlap": 86_400},
    "revoke_key": {"reason": "No longer needed"},
    "report_usage": {"events": [{"id": "job-17", "key": _KEY, "meter": "requests", "value": 3}]},
}


class Field(NamedTuple):
    """A parameter, or a part of a body: `networks[]` are a list's elements."""

    name: str
    kind: str
    is_required: bool
    text: str
    place: str = ""  # path or query
    value: str = ""  # to begin with
    choices: Sequence[str] = ()


class Answer(NamedTuple):
    """What may be answered: codes with an entry among the errors, and others."""

    status: str
    text: str
    codes: list[str]
    plain: list[str]


class Operation(NamedTuple):
    """One thing that can be asked."""

    id: str
    method: str
    path: str
    summary: str
    paragraphs: list[str]
    scopes: list[str]
    parameters: list[Field]
    body: list[Field]
    example: str  # of the body, as JSON
    result: list[Field]
    answers: list[Answer]
    curl: str


class Group(NamedTuple):
    """Operations on one kind of thing."""

    title: str
    operations: list[Operation]


@lru_cache(maxsize=2)
def groups(today: dt.date) -> list[Group]:
    """All operations, in the document's order; `today` is in the examples."""
    whole = json.loads(document(api))
    schemas = whole["components"]["schemas"]
    found: dict[str, list[Operation]] = {title: [] for title in _GROUPS.values()}
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            name = path.split("/")[2]
            found.setdefault(_GROUPS.get(name, name.title()), []).append(
                _operation(method.upper(), path, operation, schemas, today)
            )
    return [Group(title, operations) for title, operations in found.items()]


def _operation(method: str, path: str, operation: Json, schemas: Json, today: dt.date) -> Operation:
    values = {"from": f"{today.replace(day=1)}", "to": f"{today + dt.timedelta(days=1)}", "key_id": _KEY}
    parameters = [
        Field(
            each["name"],
            _kind(each["schema"], schemas),
            each["required"],
            each.get("description", ""),
            each["in"],
            values.get(each["name"], ""),
            _resolved(each["schema"], schemas).get("enum", ()),
        )
        for each in operation.get("parameters", ())
    ]
    example = _text(_body(operation["operationId"]), indent=2) if "requestBody" in operation else ""
    taken = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    success = next(each for status, each in operation["responses"].items() if status < "300")
    given = success["content"]["application/json"]
    return Operation(
        id=operation["operationId"],
        method=method,
        path=path,
        summary=operation["summary"],
        paragraphs=operation.get("description", "").strip().split("\n\n"),
        scopes=operation["security"][0]["bearer"],
        parameters=parameters,
        body=list(_fields(taken.get("schema", {}), schemas)),
        example=example,
        result=list(_fields(given["schema"], schemas)),
        answers=[_answer(status, each) for status, each in operation["responses"].items()],
        curl=_curl(method, path, parameters, example),
    )


def _body(operation: str) -> Json:
    if operation == "verify":
        return {"key": f"{settings.KEY_PREFIX}_live_…", "scopes": ["orders:read"]}
    return _BODIES.get(operation, {})


def _curl(method: str, path: str, parameters: Iterable[Field], example: str) -> str:
    asked = [each for each in parameters if each.place == "query" and each.value]
    query = "?" + "&".join(f"{each.name}={each.value}" for each in asked) if asked else ""
    url = f"{settings.PORTAL_URL}{path.replace('{key_id}', _KEY)}{query}"
    verb = f"-X {method} " if method not in ("GET", "POST") else ""
    lines = [f'curl -i {verb}"{url}"', '  -H "Authorization: Bearer $API_KEY"']
    if example:
        lines += [
            '  -H "Content-Type: application/json"',
            f"  -d '{_text(json.loads(example))}'",
        ]
    return " \\\n".join(lines)


def _text(body: Json, indent: int | None = None) -> str:
    """As people write it: the dots of a key that is left out are dots."""
    return json.dumps(body, indent=indent, ensure_ascii=False)


def _answer(status: str, response: Json) -> Answer:
    text, _, codes = response["description"].partition(": ")
    named = [code for code in codes.split(", ") if code]
    return Answer(
        status,
        text,
        [code for code in named if code in Code.__members__],
        [code for code in named if code not in Code.__members__],
    )


def _fields(schema: Json, schemas: Json, before: str = "", depth: int = 0) -> Iterator[Field]:
    """The fields of an object, those of objects in it after them."""
    schema = _resolved(schema, schemas)
    required = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        found = _resolved(each, schemas)
        is_list = found.get("type") == "array"
        inner = _resolved(found["items"], schemas) if is_list else found
        text = each.get("description") or found.get("description", "")
        yield Field(before + name, _kind(each, schemas), name in required, text)
        if "properties" in inner and depth < _DEPTH:
            yield from _fields(inner, schemas, f"{before}{name}{'[]' if is_list else ''}.", depth + 1)


def _resolved(schema: Json, schemas: Json) -> Json:
    """The schema itself: what a reference names, and of "this or null" this."""
    if "$ref" in schema:
        return _resolved(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    some = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return _resolved(some[0], schemas) if len(some) == 1 else schema


def _kind(schema: Json, schemas: Json) -> str:
    """What a value is, in a few words."""
    found = _resolved(schema, schemas)
    if "enum" in found:
        *some, last = map(str, found["enum"])
        return f"{', '.join(some)} or {last}" if some else last
    if found.get("type") == "array":
        return f"list of {_kind(found['items'], schemas)}"
    name = _NAMES.get(found.get("type", ""), "object" if "properties" in found else "value")
    if found.get("type") == "object":
        name = "object"
    if found.get("format") == "date-time":
        name = "time, as 2026-06-15T12:00:00Z"
    if "minimum" in found and "maximum" in found:
        name += f", {found['minimum']} to {found['maximum']}"
    return name
