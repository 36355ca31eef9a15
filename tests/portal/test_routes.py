"""Who gets what from every route: a table, and a walk over the resolver that fails on a route not in it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from keys.directory import Directory
from keys.models import Organization
from keys.permissions import Role
from portal import context
from portal.models import User
from tests import builders
from usage import metering

pytestmark = pytest.mark.django_db

ROLES = [role.value for role in Role]
PEOPLE = ["anonymous", "stranger", *ROLES, "staff"]  # stranger: another organization's owner
ALL = frozenset(ROLES)
OWNERS = frozenset({"owner"})
MANAGERS = frozenset({"owner", "admin"})
MAKERS = frozenset({"owner", "admin", "developer"})

# Django's admin and django-allauth look after their own routes; below is what we expect of them as a whole.
PREFIXES = ("admin/", "accounts/")


class Expected(NamedTuple):
    """What one request to a route gives each person."""

    method: str
    statuses: dict[str, int]


def public(status: int = 200) -> Expected:
    return Expected("GET", dict.fromkeys(PEOPLE, status))


def signed_in(status: int) -> Expected:
    return Expected("GET", dict.fromkeys(PEOPLE, status) | {"anonymous": 302})


def members(roles: frozenset[str], status: int = 200, method: str = "GET") -> Expected:
    """`roles` get `status`, the organization's others 403, everybody else learns nothing."""
    statuses = {role: status if role in roles else 403 for role in ROLES}
    return Expected(method, statuses | {"anonymous": 302, "stranger": 404, "staff": 404})


def staff(status: int = 200, method: str = "GET") -> Expected:
    return Expected(method, dict.fromkeys(PEOPLE, 404) | {"anonymous": 302, "staff": status})


TABLE: dict[str, list[Expected]] = {
    "landing": [public()],
    # Without settings there is neither.
    "brand_css": [public(404)],
    "brand_logo": [public(404)],
    "docs": [public()],
    "docs_api": [public()],
    "docs_authentication": [public()],
    "docs_scopes": [public()],
    "docs_limits": [public()],
    "docs_rotation": [public()],
    "docs_expiry": [public()],
    "docs_billing": [public()],
    "docs_check_statement": [public()],
    "docs_errors": [public()],
    "docs_gateway": [public()],
    "docs_leaks": [public()],
    # Without a key the form is shown again.
    "leak": [public(), Expected("POST", dict.fromkeys(PEOPLE, 400))],
    "leak_told": [public()],
    "docs_keys": [public()],
    "docs_meters": [public()],
    "docs_usage": [public()],
    "home": [signed_in(302)],
    # Who has an organization is sent home; staff without one may found one, as anybody may.
    "welcome": [Expected("GET", dict.fromkeys(PEOPLE, 302) | {"staff": 200})],
    "overview": [members(ALL)],
    "keys": [members(ALL)],
    # Without chosen keys: back to the list.
    "keys_revoke": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "keys_label": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "key": [members(ALL)],
    "usage": [members(ALL)],
    "usage_csv": [members(ALL)],
    # A search without words shows the page again.
    "refusals": [members(ALL), members(ALL, 400, "POST")],
    "refusals_csv": [members(ALL)],
    "billing": [members(frozenset({"owner", "admin", "billing"}))],
    "alert_new": [members(frozenset({"owner", "admin", "billing"}), 200, each) for each in ("GET", "POST")],
    "alert_remove": [
        members(frozenset({"owner", "admin", "billing"})),
        members(frozenset({"owner", "admin", "billing"}), 302, "POST"),
    ],
    # Of a month that is closed.
    "statement": [members(frozenset({"owner", "admin", "billing"}))],
    "statement_csv": [members(frozenset({"owner", "admin", "billing"}))],
    "statement_manifest": [members(frozenset({"owner", "admin", "billing"}))],
    "organization_settings": [members(MANAGERS), members(MANAGERS, method="POST")],
    "team": [members(ALL)],
    "team_invite": [members(MANAGERS), members(MANAGERS, method="POST")],
    # The only owner can neither leave nor be made something else; of their own row, "remove" is "leave".
    "team_leave": [members(ALL), members(ALL, 302, "POST")],
    "team_transfer": [members(OWNERS), members(OWNERS, method="POST")],
    "team_member": [members(MANAGERS), members(MANAGERS, method="POST")],
    "team_remove": [members(MANAGERS), members(MANAGERS, 302, "POST")],
    "invitation_resend": [members(MANAGERS, 302), members(MANAGERS, 302, "POST")],
    "invitation_withdraw": [members(MANAGERS), members(MANAGERS, 302, "POST")],
    "invitation": [public()],
    # There are terms only where they are set (tests/portal/test_terms.py).
    "terms": [public(404)],
    "terms_accept": [Expected("GET", dict.fromkeys(PEOPLE, 404) | {"anonymous": 302})],
    # To the page without sign-in; for whom it is not, the page says so.
    "invitation_accept": [Expected("POST", dict.fromkeys(PEOPLE, 409) | {"anonymous": 302})],
    "activity": [members(MAKERS)],
    "activity_csv": [members(MAKERS)],
    # A POST without fields shows the form again; nothing is made of it.
    "key_new": [members(MAKERS), members(MAKERS, method="POST")],
    "key_edit": [members(MAKERS), members(MAKERS, method="POST")],
    "key_try": [members(MAKERS), members(MAKERS, 400, "POST")],
    "trials": [members(ALL)],
    "trial_new": [members(MAKERS), members(MAKERS, 400, "POST")],
    "trial": [members(ALL)],
    "trial_apply": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "trial_discard": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "key_leaks": [members(ALL)],
    "key_first_call": [members(ALL)],
    "key_canary": [members(MAKERS), members(MAKERS, method="POST")],
    "key_take_up": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "key_ask": [members(MAKERS), members(MAKERS, method="POST")],
    "key_rotate": [members(MAKERS), members(MAKERS, method="POST")],
    "key_revoke": [members(MAKERS), members(MAKERS, 302, "POST")],
    "key_disable": [members(MAKERS), members(MAKERS, 302, "POST")],
    "key_enable": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "key_end_overlap": [members(MAKERS), members(MAKERS, 302, "POST")],
    "key_extend_overlap": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "key_roll_back": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "attention": [members(ALL)],
    "signal_mend": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "signal_dismiss": [members(MAKERS, 302), members(MAKERS, 302, "POST")],
    "staff": [staff()],
    "staff_attention": [staff()],
    "staff_usage": [staff()],
    "staff_refusals": [staff()],
    "staff_leaks": [staff()],
    "staff_key_leaks": [staff()],
    "staff_billing": [staff()],
    "staff_find_key": [staff()],
    "staff_trials": [staff()],
    "staff_trial": [staff()],
    # Without a reason the form is shown again; without a visit there is none to leave.
    "staff_requests": [staff()],
    "staff_outside": [staff()],
    # Without a decision: back to the list, with what is missing.
    "staff_decide": [staff(302, "POST")],
    "staff_visit": [staff(), staff(400, "POST")],
    "staff_leave": [staff(302, "POST")],
    # The machine API: a session opens nothing there (tests/portal/test_api.py has what a key does).
    "v1_openapi": [public()],
    "v1_me": [public(401)],
    "v1_verify": [Expected("POST", dict.fromkeys(PEOPLE, 401))],
    "v1_keys": [public(401), Expected("POST", dict.fromkeys(PEOPLE, 401))],
    "v1_key": [public(401), Expected("PATCH", dict.fromkeys(PEOPLE, 401))],
    "v1_key_rotate": [Expected("POST", dict.fromkeys(PEOPLE, 401))],
    "v1_key_revoke": [Expected("POST", dict.fromkeys(PEOPLE, 401))],
    "v1_usage": [public(401)],
    "v1_leaks_github": [Expected("POST", dict.fromkeys(PEOPLE, 400))],
    "v1_usage_events": [Expected("POST", dict.fromkeys(PEOPLE, 401))],
}


def routes(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[tuple[str, str]]:
    """(whole route, name) of every view that the resolver can reach."""
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route, pattern.name or ""


def own_routes() -> list[tuple[str, str]]:
    found = routes(get_resolver().url_patterns)
    return [(route, name) for route, name in found if not route.startswith(PREFIXES)]


# What stands in a route, and a row of that kind, made anew.
ROWS: dict[str, Callable[[Organization], object]] = {
    "organization": lambda of: of.slug,
    "key_id": lambda of: builders.key(of).key.public_id,
    "period": lambda of: builders.closed_month(of),
    "kind": lambda of: "no_expiry",
    "alert_id": lambda of: builders.alert(of).pk,
    "member_id": lambda of: builders.member(builders.user(f"new-{User.objects.count()}"), of).pk,
    "invitation_id": lambda of: (
        builders.invitation(of, f"asked-{of.invitations.count()}@example.com").public_id
    ),
    "request_id": lambda of: builders.scope_request(of).pk,
    "trial_id": lambda of: builders.trial(builders.key(of).key).pk,
}


def arguments(route: str, of: Organization, **known: object) -> dict[str, object]:
    """What makes an address of a route: what is known, and for the rest rows made for it."""
    needed = {name: make for name, make in ROWS.items() if re.search(f"[<:]{name}>", route)}
    return {name: known[name] if name in known else make(of) for name, make in needed.items()}


@pytest.fixture
def acme() -> Organization:
    """An organization with a member of each role, beside another with an owner of its own."""
    organization = builders.organization("acme", owner=builders.user("owner"))
    for role in Role:
        if role is not Role.OWNER:
            builders.member(builders.user(role.value), organization, role)
    builders.organization("other", owner=builders.user("stranger"))
    builders.staff("staff")
    return organization


@pytest.fixture(autouse=True)
def known_keys(db: None, journal_dir: Path) -> None:
    """For the machine API, which answers 503 until it knows the keys."""
    directory = Directory(process_id="test", lock_dir=journal_dir)
    directory.refresh()
    metering.start(directory)


def client_of(who: str) -> Client:
    client = Client()
    return (
        client
        if who == "anonymous"
        else builders.signed_in(client, User.objects.get(email=f"{who}@example.com"))
    )


def test_no_route_is_missing_from_the_table() -> None:
    assert {name for _, name in own_routes()} == set(TABLE)


def test_every_route_has_a_name_of_its_own() -> None:
    names = [name for _, name in own_routes()]
    assert len(names) == len(set(names))


def test_an_organizations_routes_all_carry_its_slug() -> None:
    open_to_all = {
        "landing",
        "brand_css",
        "brand_logo",
        "docs",
        "docs_api",
        "docs_authentication",
        "docs_scopes",
        "docs_limits",
        "docs_rotation",
        "docs_expiry",
        "docs_billing",
        "docs_check_statement",
        "docs_errors",
        "docs_gateway",
        "docs_leaks",
        "leak",
        "leak_told",
        "docs_keys",
        "docs_meters",
        "docs_usage",
        "home",
        "terms",
        "terms_accept",
        "invitation",
        "invitation_accept",
        "welcome",
        "staff",
        "staff_usage",
        "staff_attention",
        "staff_refusals",
        "staff_leaks",
        "staff_key_leaks",
        "staff_billing",
        "staff_find_key",
        "staff_trials",
        "staff_trial",
        "staff_leave",
        "staff_requests",
        "staff_decide",
        "staff_outside",
        "v1_openapi",
        "v1_me",
        "v1_verify",
        "v1_keys",
        "v1_key",
        "v1_key_rotate",
        "v1_key_revoke",
        "v1_usage",
        "v1_leaks_github",
        "v1_usage_events",
    }
    for route, name in own_routes():
        if name != "staff_visit":  # the staff's page about one of them
            assert route.startswith("o/<slug:organization>/") != (name in open_to_all), route


@pytest.mark.parametrize(("name", "expected"), [(name, each) for name in TABLE for each in TABLE[name]])
def test_each_role_gets_what_the_table_says(acme: Organization, name: str, expected: Expected) -> None:
    route = next(route for route, found in own_routes() if found == name)
    got = {}
    known = {"period": builders.closed_month(acme)} if "period" in route else {}
    for who in PEOPLE:
        url = reverse(name, kwargs=arguments(route, acme, **known))
        response = client_of(who).generic(expected.method, url)
        got[who] = response.status_code
        if who == "anonymous" and response.status_code == 302 and name != "invitation_accept":
            assert response.headers["Location"].startswith("/accounts/login/?next=")
    assert got == expected.statuses


def test_what_the_other_tenant_sees_is_what_nobody_would_find(acme: Organization) -> None:
    client = client_of("stranger")
    there = client.get(reverse("overview", kwargs={"organization": "acme"}))
    nowhere = client.get(reverse("overview", kwargs={"organization": "no-such-organization"}))
    assert there.status_code == nowhere.status_code == 404
    assert there.content.replace(b"acme", b"") == nowhere.content.replace(b"no-such-organization", b"")


def test_the_admin_is_for_staff_alone(acme: Organization) -> None:
    for route, _ in routes(get_resolver().url_patterns):
        if not route.startswith("admin/") or "<" in route or "(" in route:
            continue
        for who in PEOPLE:
            response = client_of(who).get(f"/{route}")
            assert response.status_code < 500, route
            if who != "staff":
                assert response.status_code in (302, 403, 404), (route, who)
    assert client_of("staff").get("/admin/").status_code == 200


def test_no_account_page_fails_for_anyone(acme: Organization) -> None:
    for route, _ in routes(get_resolver().url_patterns):
        if not route.startswith("accounts/") or "<" in route or "(" in route:
            continue
        for who in ("anonymous", "viewer"):
            assert client_of(who).get(f"/{route}").status_code < 500, route


def test_no_get_changes_anything(acme: Organization) -> None:
    key = builders.key(acme).key
    client = client_of("owner")
    known = arguments("".join(f"<:{name}>" for name in ROWS), acme, key_id=key.public_id)
    before = acme.events.count()
    for name, expected in TABLE.items():
        if expected[0].statuses["stranger"] == 404 and expected[0].statuses["owner"] != 404:
            route = next(route for route, found in own_routes() if found == name)
            client.get(reverse(name, kwargs=arguments(route, acme, **known)))
    assert acme.events.count() == before
    assert builders.reloaded(key).state_at(timezone.now()) == "active"


def test_every_page_of_an_organization_is_some_line_of_the_sidebar() -> None:
    lines = [(name, *more) for _, name, _, _, more in context.ORGANIZATION_PAGES]
    pages = [name for route, name in own_routes() if route.startswith("o/<slug:organization>/")]
    shown = [
        name
        for name in pages
        if TABLE[name][0].method == "GET"
        and TABLE[name][0].statuses["owner"] == 200
        and not name.endswith(("_csv", "_manifest"))
    ]
    assert [name for name in shown if sum(name in line for line in lines) != 1] == []
