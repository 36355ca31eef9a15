"""The API's reference: nothing of the OpenAPI document is missing, and its examples would be taken."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from portal import api_reference
from portal.api.document import document
from portal.api.urls import api

DAY = dt.date(2026, 6, 15)
WHOLE: dict[str, Any] = json.loads(document(api))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in WHOLE["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def shown() -> dict[str, api_reference.Operation]:
    return {each.id: each for group in api_reference.groups(DAY) for each in group.operations}


def test_every_operation_is_shown_with_all_that_it_takes_and_answers() -> None:
    assert set(shown()) == {operation["operationId"] for _, _, operation in operations()}
    for method, path, operation in operations():
        found = shown()[operation["operationId"]]
        assert (found.method, found.path) == (method, path)
        assert [each.name for each in found.parameters] == [
            each["name"] for each in operation.get("parameters", ())
        ]
        assert [each.status for each in found.answers] == list(operation["responses"])
        assert all(each.codes or each.plain for each in found.answers if each.status >= "400")
        assert found.result
        assert method in ("GET", "POST") or f"-X {method}" in found.curl


def test_every_body_has_an_example_of_fields_that_are_taken() -> None:
    for _, _, operation in operations():
        found = shown()[operation["operationId"]]
        assert bool(found.example) == ("requestBody" in operation)
        if found.example:
            given = set(json.loads(found.example))
            assert given <= {each.name for each in found.body}
            assert {each.name for each in found.body if each.is_required and "." not in each.name} <= given


def test_examples_are_shown_without_escapes() -> None:
    found = shown()["verify"]
    assert "_live_…" in found.example
    assert "_live_…" in found.curl


def test_a_field_says_what_it_is() -> None:
    fields = {each.name: each for each in shown()["verify"].body}
    assert (fields["key"].kind, fields["key"].is_required) == ("text", True)
    assert fields["environment"].kind == "live or test"
    assert fields["scopes"].kind == "list of text"
    assert fields["cost"].kind == "whole number, 0 to 2147483648"
    assert "data[].calls" in {each.name for each in shown()["usage"].result}


def test_a_choice_is_offered_as_one() -> None:
    state = shown()["list_keys"].parameters[0]
    assert state.kind == "active, expiring, expired, disabled or revoked"
    assert list(state.choices) == ["active", "expiring", "expired", "disabled", "revoked"]


def test_usage_is_asked_for_the_month_so_far() -> None:
    assert "from=2026-06-01&to=2026-06-16" in shown()["usage"].curl


@pytest.mark.django_db
def test_the_page_has_a_line_and_a_form_for_each_and_no_field_that_keeps_a_key(
    client: Client,
) -> None:
    html = client.get(reverse("docs_api")).content.decode()
    for operation in api_reference.groups(dt.datetime.now(dt.UTC).date())[0].operations:
        assert escape(operation.curl) in html
    assert html.count("data-try ") == len(shown())
    field = html[html.index('<input class="input" id="try-key"') :].partition(">")[0]
    assert 'autocomplete="off"' in field
    assert "name=" not in field
