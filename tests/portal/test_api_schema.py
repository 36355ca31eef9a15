"""The machine API as its own OpenAPI document has it, fuzzed: whatever fits is answered as declared, whatever
does not is refused as declared, and nothing without a key gets through.
"""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys.directory import Directory
from tests import builders
from tests.portal.api import Portal, application, make_portal
from usage import metering, meters
from usage.records import RESOURCE_LENGTH

pytestmark = pytest.mark.django_db

type Case = schemathesis.Case[Any]  # generic in what it was generated from

EXAMPLES = 100  # of each operation and kind of caller, beside those that cover the schema's edges


PROVIDERS_OWN = ("/v1/keys/verify", "/v1/usage/events")
# No schema says that a range must not be too long, nor which cursors were given out.
MANAGED = r"^/v1/keys(/\{key_id\}(/rotate|/revoke)?)?$"
UNSAID = {
    "/v1/usage": [schemathesis.checks.positive_data_acceptance],
    # Nor what a rate, a name or a policy is, nor when now is.
    "/v1/keys": [schemathesis.checks.positive_data_acceptance],
    "/v1/keys/{key_id}": [schemathesis.checks.positive_data_acceptance],
    "/v1/keys/{key_id}/rotate": [schemathesis.checks.positive_data_acceptance],
    "/v1/keys/{key_id}/revoke": [schemathesis.checks.positive_data_acceptance],
}


@pytest.fixture
def portal(journal_dir: Path) -> Iterator[Portal]:
    yield make_portal(Directory(process_id="test", lock_dir=journal_dir))
    metering.stop()


schemathesis.openapi.format("label", st.text(max_size=RESOURCE_LENGTH).filter(str.isprintable))
schemathesis.openapi.format("usage-hour", st.dates(dt.date(2026, 1, 1), dt.date(2026, 12, 31)).map(str))
api = schemathesis.openapi.from_wsgi("/v1/openapi.json", application)
managed, others = api.include(path_regex=MANAGED), api.exclude(path_regex=MANAGED)
bounded = hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),  # it filters what a schema cannot express
)

few = hypothesis_settings(bounded, max_examples=EXAMPLES // 10)


def with_a_meter_that_there_is(case: Case) -> Case:
    """A schema says what a meter's name looks like; only the database says which there are."""
    if isinstance(case.body, dict) and meters.is_name(str(case.body.get("meter"))):
        case.body["meter"] = "requests"
    return case


def validate(case: Case, **headers: str) -> Any:
    """The answer, which is as declared."""
    return case.call_and_validate(headers=headers, excluded_checks=UNSAID.get(case.path, []))


@others.parametrize()
@bounded
def test_every_answer_to_the_provider_is_as_declared(case: Case, portal: Portal) -> None:
    issued = builders.key(
        portal.verifier.key.organization, scopes=("portal:verify", "portal:report", "portal:usage")
    )
    portal.directory.refresh()
    validate(with_a_meter_that_there_is(case), Authorization=f"Bearer {issued.plaintext}")


@others.parametrize()
@bounded
def test_every_answer_to_a_customer_is_as_declared(case: Case, portal: Portal) -> None:
    portal.directory.refresh()
    response = validate(case, Authorization=f"Bearer {portal.asked.plaintext}")
    if case.path in PROVIDERS_OWN:
        assert response.status_code in (403, 405)


@others.parametrize()
@bounded
def test_every_answer_to_a_stranger_is_as_declared(case: Case, portal: Portal) -> None:
    portal.directory.refresh()
    response = validate(case)
    assert response.status_code in (400, 401, 405)


@managed.parametrize()
@few
def test_every_answer_to_who_manages_keys_is_as_declared(case: Case, portal: Portal) -> None:
    acme = portal.asked.key.organization
    manager = builders.key(acme, scopes=("portal:keys", "orders:read", "orders:write"))
    portal.directory.refresh()
    if case.path_parameters and re.fullmatch(r"key_[0-9A-Za-z]{16}", case.path_parameters["key_id"]):
        case.path_parameters["key_id"] = portal.asked.key.public_id
    validate(case, Authorization=f"Bearer {manager.plaintext}")


@managed.parametrize()
@few
def test_nobody_else_manages_keys(case: Case, portal: Portal) -> None:
    portal.directory.refresh()
    assert validate(case, Authorization=f"Bearer {portal.asked.plaintext}").status_code in (403, 405)
    assert validate(case).status_code in (400, 401, 405)
