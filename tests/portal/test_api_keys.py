"""`/v1/keys`: an organization's own programs manage its keys, and a key grants nothing that it has not."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from keys import lifecycle
from keys.directory import Directory
from keys.models import AuditEvent, Key, Secret
from tests import builders, threads
from tests.portal.api import Portal, make_portal, problem
from usage import metering
from usage.models import SecretUse

pytestmark = pytest.mark.django_db
COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)
JUNK: list[Any] = [
    *(None, 1, -1, True, "", "a\x00b", "\ud800", "x" * 5000, [], {}, ["\x00"], ["\ud800"], [["a"]]),
    *({"a": 1}, {"\x00": "b"}, {"a": "\ud800"}, ["lk_live_" + "a" * 38], "lk_live_" + "a" * 38),
]


@pytest.fixture
def portal(journal_dir: Path) -> Iterator[Portal]:
    yield make_portal(Directory(process_id="test", lock_dir=journal_dir))
    metering.stop()


@pytest.fixture
def manager(portal: Portal) -> lifecycle.Issued:
    """A key of acme that manages keys and may read orders."""
    issued = builders.key(portal.asked.key.organization, name="CI", scopes=("portal:keys", "orders:read"))
    portal.directory.refresh()
    return issued


def call(issued: lifecycle.Issued, method: str, path: str, body: object = None, **query: str) -> Any:
    """One call with this key: bytes and text as they are, anything else as JSON."""
    raw = body if isinstance(body, (str, bytes)) else json.dumps({} if body is None else body)
    headers = {"Authorization": f"Bearer {issued.plaintext}"}
    client = Client(enforce_csrf_checks=True)
    if method == "GET":
        return client.get(f"/v1/keys{path}", query, headers=headers)
    return client.generic(method, f"/v1/keys{path}", raw, content_type="application/json", headers=headers)


def made(manager: lifecycle.Issued, **body: Any) -> dict[str, Any]:
    response = call(manager, "POST", "", {"name": "Worker"} | body)
    assert response.status_code == 201, response.content
    answer: dict[str, Any] = response.json()
    return answer


# --- what each call does --------------------------------------------------------------------------


def test_a_key_makes_a_key_and_its_secret_is_in_that_answer_alone(
    portal: Portal, manager: lifecycle.Issued
) -> None:
    answer = made(manager, scopes=["orders:read"], networks=["192.0.2.1"], metadata={"team": "maps"})
    assert answer["hint"].endswith(answer["secret"][-10:-6])
    assert answer["networks"] == ["192.0.2.1/32"]
    assert (answer["state"], answer["environment"]) == ("active", "live")
    portal.directory.refresh()
    key = Key.objects.get(public_id=answer["id"])
    assert key.organization == manager.key.organization
    shown = call(manager, "GET", f"/{key.public_id}").content + call(manager, "GET", "").content
    assert answer["secret"].encode() not in shown
    event = AuditEvent.objects.latest("number")
    assert (event.act, event.actor_kind, event.actor_id) == ("key.created", "key", manager.key.pk)
    assert event.actor_label == f"CI ({manager.key.public_id})"


def test_a_new_key_gets_the_policys_usual_life_and_the_callers_environment(portal: Portal) -> None:
    tester = portal.key("globex", scopes=("portal:keys",), environment="test")
    answer = made(tester)
    assert answer["environment"] == "test"
    expires_at = dt.datetime.fromisoformat(answer["expires_at"])
    assert 89 * DAY < expires_at - timezone.now() < 91 * DAY
    assert made(tester, expires_at=None)["expires_at"] is None


def test_the_list_has_every_key_of_the_organization_once_page_by_page(
    portal: Portal, manager: lifecycle.Issued
) -> None:
    for number in range(5):
        builders.key(manager.key.organization, name=str(number))
    portal.key("globex")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = call(manager, "GET", "", limit="3", **cursor).json()
        seen += [key["id"] for key in page["data"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    own = manager.key.organization.keys.order_by("-created_at", "-pk")
    assert seen == list(own.values_list("public_id", flat=True))


def test_the_list_can_be_filtered_and_its_cursor_belongs_to_the_filter(manager: lifecycle.Issued) -> None:
    acme = manager.key.organization
    for number in range(3):
        lifecycle.revoke_key(COMMAND, builders.key(acme, name=str(number)).key, now=timezone.now())
    builders.key(acme, environment="test", name="Test")
    page = call(manager, "GET", "", state="revoked", limit="2").json()
    assert {key["state"] for key in page["data"]} == {"revoked"}
    assert [key["name"] for key in call(manager, "GET", "", environment="test").json()["data"]] == ["Test"]
    problem(call(manager, "GET", "", cursor=page["next"]), 422, "INVALID")


def test_the_list_takes_a_fixed_number_of_queries(
    manager: lifecycle.Issued, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        builders.key(manager.key.organization, name=str(number), scopes=("orders:read",))
    with django_assert_max_num_queries(6):
        assert len(call(manager, "GET", "").json()["data"]) == 22


def test_a_key_says_when_it_was_used_and_what_its_policy_wants(manager: lifecycle.Issued) -> None:
    now = timezone.now()
    acme = manager.key.organization
    old = builders.key(acme, now=now - 100 * DAY, expires_at=None)
    SecretUse.objects.create(secret=old.secret, calls=1, last_used_at=now)
    lifecycle.edit_policy(COMMAND, acme.policy, rotate_days=30, networks_required=True, now=now)
    answer = call(manager, "GET", f"/{old.key.public_id}").json()
    assert dt.datetime.fromisoformat(answer["last_used_at"]) - now < DAY / 1000
    assert dt.datetime.fromisoformat(answer["rotate_by"]) < now
    assert answer["outside"] == ["networks", "rotation"]


def test_an_edit_changes_what_is_given_and_leaves_the_rest(manager: lifecycle.Issued) -> None:
    key = builders.key(manager.key.organization, networks=["10.0.0.0/8"], rates=["5/second"]).key
    changed = {"name": "Renamed", "scopes": ["orders:read"], "rates": []}
    changed |= {"expires_at": "2099-01-01t00:00:00z"}
    answer = call(manager, "PATCH", f"/{key.public_id}", changed).json()
    assert (answer["name"], answer["scopes"], answer["rates"]) == ("Renamed", ["orders:read"], [])
    assert answer["networks"] == ["10.0.0.0/8"]
    assert answer["expires_at"] == "2099-01-01T00:00:00Z"
    before = AuditEvent.objects.count()
    assert call(manager, "PATCH", f"/{key.public_id}", {}).json() == answer
    assert AuditEvent.objects.count() == before


def test_a_key_is_disabled_and_enabled_and_nothing_is_half_done(manager: lifecycle.Issued) -> None:
    key = builders.key(manager.key.organization).key
    assert call(manager, "PATCH", f"/{key.public_id}", {"disabled": True}).json()["state"] == "disabled"
    lifecycle.edit_policy(COMMAND, key.organization.policy, networks_required=True, now=timezone.now())
    both = {"name": "Renamed", "disabled": False}
    problem(call(manager, "PATCH", f"/{key.public_id}", both), 409, "CONFLICT")
    assert builders.reloaded(key).name == "Backend"
    mended = {"networks": ["10.0.0.0/8"], "disabled": False}
    assert call(manager, "PATCH", f"/{key.public_id}", mended).json()["state"] == "active"


def test_a_key_rotates_itself_once(portal: Portal, manager: lifecycle.Issued) -> None:
    path = f"/{manager.key.public_id}/rotate"
    answer = call(manager, "POST", path, {"overlap": 3600}).json()
    assert DAY / 25 < dt.datetime.fromisoformat(answer["old_secret_stops_at"]) - timezone.now() < DAY / 24
    portal.directory.refresh()
    problem(call(manager, "POST", path, {"overlap": 3600}), 409, "CONFLICT")
    successor = lifecycle.Issued(manager.key, manager.secret, answer["secret"])
    assert call(successor, "GET", f"/{manager.key.public_id}").json()["hint"] == answer["hint"]
    assert manager.key.secrets.count() == 2


def test_a_leaked_secret_ends_with_the_rotation_that_replaces_it(
    portal: Portal, manager: lifecycle.Issued
) -> None:
    path = f"/{manager.key.public_id}/rotate"
    renewed = (timezone.now() + 5 * DAY).isoformat(timespec="seconds")
    answer = call(manager, "POST", path, {"overlap": 0, "expires_at": renewed}).json()
    assert dt.datetime.fromisoformat(answer["expires_at"]) == dt.datetime.fromisoformat(renewed)
    portal.directory.refresh()
    assert call(manager, "GET", "").status_code == 401


@pytest.mark.parametrize("kind", ["", "application/json"])
def test_a_rotation_and_a_revocation_need_no_body(manager: lifecycle.Issued, kind: str) -> None:
    client = Client(headers={"Authorization": f"Bearer {manager.plaintext}"})
    path = f"/v1/keys/{builders.key(manager.key.organization).key.public_id}"
    answer = client.generic("POST", f"{path}/rotate", b"", content_type=kind).json()
    left = dt.datetime.fromisoformat(answer["old_secret_stops_at"]) - timezone.now()
    assert DAY * 0.99 < left <= DAY
    assert client.generic("POST", f"{path}/revoke", b"", content_type=kind).json()["state"] == "revoked"
    refused = problem(call(manager, "POST", f"/{manager.key.public_id}/revoke", b"null"), 422, "INVALID")
    assert refused["errors"] == [{"location": "body", "message": "Input should be an object"}]
    declared = client.get("/v1/openapi.json").json()["paths"]["/v1/keys/{key_id}/rotate"]["post"]
    assert declared["requestBody"] == {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/RotateBody"}}},
        "required": False,
    }


def test_a_key_is_revoked_its_own_included_and_again_is_the_same(
    portal: Portal, manager: lifecycle.Issued
) -> None:
    other = portal.asked.key.public_id
    for reason in ("It leaked", "Another reason"):
        answer = call(manager, "POST", f"/{other}/revoke", {"reason": reason}).json()
        assert (answer["state"], answer["revoked_reason"]) == ("revoked", "It leaked")
    assert call(manager, "POST", f"/{manager.key.public_id}/revoke").json()["state"] == "revoked"
    problem(call(manager, "POST", "", {"name": "More"}), 403, "FORBIDDEN")  # before the directory knows
    portal.directory.refresh()
    assert call(manager, "GET", "").status_code == 401


# --- who may not ----------------------------------------------------------------------------------


def test_without_the_scope_nothing_is_told_or_done(portal: Portal, manager: lifecycle.Issued) -> None:
    key_id = manager.key.public_id
    calls = [("GET", ""), ("POST", ""), ("GET", f"/{key_id}"), ("PATCH", f"/{key_id}")]
    for method, path in [*calls, ("POST", f"/{key_id}/rotate"), ("POST", f"/{key_id}/revoke")]:
        problem(call(portal.asked, method, path, {"name": "x"}), 403, "INSUFFICIENT_SCOPE")


def test_another_organizations_key_is_as_one_that_is_not_there(
    portal: Portal, manager: lifecycle.Issued
) -> None:
    theirs = portal.key("globex").key
    for key_id in (theirs.public_id, "key_" + "a" * 16, "key_x", "lk_live_x", "verify2", "%00", "é" * 200):
        for method, path in [("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("POST", "/revoke")]:
            problem(call(manager, method, f"/{key_id}{path}"), 404, "NOT_FOUND")
    assert builders.reloaded(theirs).revoked_at is None


def test_a_key_grants_no_scope_that_it_lacks_by_any_call(portal: Portal, manager: lifecycle.Issued) -> None:
    problem(call(manager, "POST", "", {"name": "x", "scopes": ["orders:write"]}), 403, "FORBIDDEN")
    stronger = portal.asked.key.public_id  # may write orders
    problem(call(manager, "POST", f"/{stronger}/rotate"), 403, "FORBIDDEN")
    problem(call(manager, "PATCH", f"/{stronger}", {"networks": ["10.0.0.0/8"]}), 403, "FORBIDDEN")
    own = f"/{manager.key.public_id}"
    problem(call(manager, "PATCH", own, {"scopes": ["portal:keys", "orders:write"]}), 403, "FORBIDDEN")
    assert Secret.objects.filter(key=portal.asked.key).count() == 1
    assert call(manager, "POST", f"/{stronger}/revoke").json()["state"] == "revoked"


@pytest.mark.parametrize("scope", ["portal:verify", "portal:report", "no:such"])
def test_what_staff_alone_can_grant_is_refused_and_not_repeated(portal: Portal, scope: str) -> None:
    holder = portal.key("globex", scopes=("portal:keys", "portal:verify"))
    answer = call(holder, "POST", "", {"name": "x", "scopes": [scope]})
    assert problem(answer, 422, "INVALID")["errors"][0]["location"] == "body/scopes"
    assert scope.encode() not in answer.content


def test_a_test_key_manages_test_keys_only(portal: Portal) -> None:
    tester = portal.key("globex", scopes=("portal:keys",), environment="test")
    live = builders.key(tester.key.organization).key
    problem(call(tester, "POST", "", {"name": "x", "environment": "live"}), 403, "FORBIDDEN")
    problem(call(tester, "POST", f"/{live.public_id}/revoke"), 403, "FORBIDDEN")
    problem(call(tester, "PATCH", f"/{live.public_id}", {"disabled": True}), 403, "FORBIDDEN")


def test_a_key_that_is_limited_to_networks_lifts_no_limit(portal: Portal) -> None:
    bound = portal.key("globex", scopes=("portal:keys",), networks=["127.0.0.0/8", "10.0.0.0/8"])
    own = f"/{bound.key.public_id}"
    for networks in ([], ["0.0.0.0/0"], ["10.0.0.0/7"], ["10.1.0.0/16", "192.0.2.0/24"], ["2001:db8::/32"]):
        problem(call(bound, "POST", "", {"name": "x", "networks": networks}), 403, "FORBIDDEN")
        problem(call(bound, "PATCH", own, {"networks": networks}), 403, "FORBIDDEN")
    assert made(bound, networks=["10.1.0.0/16"])["networks"] == ["10.1.0.0/16"]


def test_the_policy_holds_here_too(manager: lifecycle.Issued) -> None:
    acme = manager.key.organization
    lifecycle.edit_policy(
        COMMAND, acme.policy, max_lifetime_days=30, networks_required=True, max_keys=3, now=timezone.now()
    )
    far = (timezone.now() + 31 * DAY).isoformat()
    refused: list[dict[str, Any]] = [{"expires_at": None}, {"expires_at": far}, {"networks": []}]
    for fields in refused:
        body = {"name": "x", "networks": ["10.0.0.0/8"]} | fields
        answer = problem(call(manager, "POST", "", body), 422, "INVALID")
        assert answer["errors"][0]["location"] == f"body/{next(iter(fields))}"
    made(manager, networks=["10.0.0.0/8"])
    problem(call(manager, "POST", "", {"name": "x", "networks": ["10.0.0.0/8"]}), 409, "CONFLICT")


# --- junk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["name", "scopes", "expires_at", "networks", "rates", "quotas", "metadata", "environment", "x"]
)
def test_junk_in_a_field_is_422_and_is_not_repeated(manager: lifecycle.Issued, field: str) -> None:
    for value in JUNK:
        for method, path in [("POST", ""), ("PATCH", f"/{manager.key.public_id}")]:
            body = {"name": "x"} | {field: value}
            response = call(manager, method, path, body)
            if response.status_code not in (200, 201):
                problem(response, 422, "INVALID")
            if value not in (None, "", 1, [], {}, -1, True):
                assert json.dumps(value)[1:-1].encode() not in response.content or len(str(value)) < 4


def test_junk_as_a_body_or_a_query_is_refused(manager: lifecycle.Issued) -> None:
    own = f"/{manager.key.public_id}"
    bodies: list[bytes] = [b"[]", b"nul", b"\x00", b'{"a": 1, "a": 2}', b"\xff", b'{"overlap": 1e400}']
    for body in bodies:
        for method, path in [("POST", ""), ("PATCH", own), ("POST", f"{own}/rotate")]:
            assert call(manager, method, path, body).status_code in (400, 422)
    for method, path in [("POST", ""), ("PATCH", own)]:
        assert call(manager, method, path, b"").status_code in (400, 422)
    assert call(manager, "POST", "", b'{"name": "' + b"x" * 2**20 + b'"}').status_code in (413, 422)
    queries = [("limit", "0"), ("limit", "1_0"), ("limit", "9" * 99), ("state", "x"), ("cursor", "\x00")]
    for name, value in [*queries, ("x", "1")]:
        problem(call(manager, "GET", "", **{name: value}), 422, "INVALID")
    for overlap in (-1, 90 * 86_400 + 1, "3600", None, 1.5):
        problem(call(manager, "POST", f"{own}/rotate", {"overlap": overlap}), 422, "INVALID")
    assert Key.objects.filter(organization=manager.key.organization).count() == 2


@given(
    at=st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()) | st.text(max_size=40)
)
@hypothesis_settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
def test_any_moment_is_stored_or_refused(manager: lifecycle.Issued, at: str) -> None:
    response = call(manager, "PATCH", f"/{manager.key.public_id}", {"expires_at": at})
    assert response.status_code in (200, 422)


# --- at once --------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_many_that_rotate_a_key_at_once_one_succeeds(portal: Portal, manager: lifecycle.Issued) -> None:
    path = f"/{manager.key.public_id}/rotate"
    answers = threads.at_once([lambda: call(manager, "POST", path).status_code] * 4)
    assert sorted(map(str, answers)) == ["200", "409", "409", "409"]
    assert manager.key.secrets.count() == 2
