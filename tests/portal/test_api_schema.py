"""The machine API as its own OpenAPI document has it, fuzzed: whatever fits is answered as declared, whatever
does not is refused as declared, and nothing without a key gets through.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys.directory import Directory
from tests.portal.api import Portal, application, make_portal
from usage import metering, meters
from usage.records import RESOURCE_LENGTH

pytestmark = pytest.mark.django_db

type Case = schemathesis.Case[Any]  # generic in what it was generated from

EXAMPLES = 100  # of each operation and kind of caller, beside those that cover the schema's edges


@pytest.fixture
def portal(journal_dir: Path) -> Iterator[Portal]:
    yield make_portal(Directory(process_id="test", lock_dir=journal_dir))
    metering.stop()


schemathesis.openapi.format("label", st.text(max_size=RESOURCE_LENGTH).filter(str.isprintable))
api = schemathesis.openapi.from_wsgi("/v1/openapi.json", application)
bounded = hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),  # it filters what a schema cannot express
)


def with_a_meter_that_there_is(case: Case) -> Case:
    """A schema says what a meter's name looks like; only the database says which there are."""
    if isinstance(case.body, dict) and meters.is_name(str(case.body.get("meter"))):
        case.body["meter"] = "requests"
    return case


@api.parametrize()
@bounded
def test_every_answer_to_the_provider_is_as_declared(case: Case, portal: Portal) -> None:
    portal.directory.refresh()
    case = with_a_meter_that_there_is(case)
    case.call_and_validate(headers={"Authorization": f"Bearer {portal.verifier.plaintext}"})


@api.parametrize()
@bounded
def test_every_answer_to_a_customer_is_as_declared(case: Case, portal: Portal) -> None:
    portal.directory.refresh()
    response = case.call_and_validate(headers={"Authorization": f"Bearer {portal.asked.plaintext}"})
    if case.path == "/v1/keys/verify":
        assert response.status_code in (403, 405)


@api.parametrize()
@bounded
def test_every_answer_to_a_stranger_is_as_declared(case: Case, portal: Portal) -> None:
    portal.directory.refresh()
    response = case.call_and_validate()
    assert response.status_code in (400, 401, 405)
