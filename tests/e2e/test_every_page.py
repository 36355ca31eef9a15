"""Every page in a real browser: no axe violation in light and dark, nothing wider than a small phone."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page

from keys import lifecycle
from keys.models import LeakDoor, LeakResponse, Organization
from tests import builders
from tests.e2e.conftest import Portal, Visitor
from tests.portal.test_routes import TABLE, own_routes
from usage.billing import Period
from usage.models import Refusal, ResourceBound, ResponseRollup, Rollup, SecretUse

NO_PAGES = {
    "activity_csv",
    "statement_csv",
    "statement_manifest",
    "usage_csv",
    "refusals_csv",
    "home",
    "docs_check_statement",
    "key_enable",
    "v1_openapi",
}
ACCOUNT_PAGES = ["account_email", "account_change_password", "account_reauthenticate", "account_logout"]
VISITOR_PAGES = ["account_login", "account_signup", "account_reset_password", "account_request_login_code"]
LONG = "Gateway-of-a-very-long-name-that-nobody-breaks-" * 2


def fill(acme: Organization) -> lifecycle.Issued:
    """Believable keys in every state, with usage, long names and a history."""
    now = timezone.now()
    actor = lifecycle.command_actor()
    scopes = ("orders:read", "orders:write", "a-rather-long-resource.of-many-parts:administer")
    issued = builders.key(
        acme,
        name=LONG[:100],
        scopes=scopes,
        networks=["203.0.113.0/24", "2001:db8:1234:5678::/64"],
        rates=["10/second"],
        metadata={"team": "x" * 200},
    )
    lifecycle.rotate_key(actor, issued.key, overlap=dt.timedelta(days=1), now=now)
    builders.key(acme, name="Soon", expires_at=now + dt.timedelta(days=6))
    lifecycle.disable_key(actor, builders.key(acme, name="Off").key, now=now)
    lifecycle.revoke_key(actor, builders.key(acme, name="Gone").key, reason="y" * 200, now=now)
    lifecycle.plant_canary(actor, acme, name="Wiki", now=now)
    lifecycle.report_leak(
        issued.secret,
        door=LeakDoor.GITHUB,
        place="https://example.com/" + "z" * 400,
        source="content",
        response=LeakResponse.NOTIFY,
        now=now,
    )
    SecretUse.objects.create(
        secret=issued.secret,
        calls=1,
        last_used_at=now,
        address="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        user_agent="x" * 256,
    )
    hour = now.replace(minute=0, second=0, microsecond=0)
    for day in range(30):
        for outcome, calls in (("VALID", 987_654_321), ("RATE_LIMITED", 12_345), ("IP_NOT_ALLOWED", 7)):
            at = hour - dt.timedelta(days=day)
            Rollup.objects.create(
                organization=acme,
                hour=at,
                key=issued.key,
                meter="requests",
                outcome=outcome,
                booked_period=at.date().replace(day=1),
                calls=calls,
                quantity=calls,
            )
    builders.meter("gpu-hours", unit="hour", title="GPU hours " + LONG[:90], decimals=6)
    for resource in ("", "other", LONG[:128]):
        Rollup.objects.create(
            organization=acme,
            hour=hour,
            key=issued.key,
            meter="gpu-hours",
            resource=resource,
            outcome="VALID",
            booked_period=hour.date().replace(day=1),
            calls=987_654_321,
            quantity=2**60,
        )
    builders.closed_month(acme, issued.key)
    tiers = [{"up_to": 10**9, "unit_price": "0.000123456789"}, {"up_to": None, "unit_price": "0.01"}]
    prices: dict[str, dict[str, Any]] = {
        "gpu-hours": {"unit_price": "999.99"},
        "requests": {"model": "graduated", "tiers": tiers},
    }
    version = builders.version("grand", currency="USD", fee=10**12, **prices)
    builders.subscription(acme, version, Period.of(now).previous.start)
    ResourceBound.objects.create(organization=acme, meter="gpu-hours", kept=1000, reached_at=now)
    for status_class, responses in ((2, 987_654_321), (4, 12_345), (5, 7)):
        ResponseRollup.objects.create(
            organization=acme, hour=hour, key=issued.key, status_class=status_class, responses=responses
        )
    for number, code in enumerate(("IP_NOT_ALLOWED", "RATE_LIMITED", "EXPIRED")):
        Refusal.objects.create(
            spool="a" * 11,
            sequence=number + 2,
            at=now,
            organization=acme,
            key=issued.key,
            secret=issued.secret,
            outcome=code,
            resource="r" * 128,
            address="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            user_agent="Mozilla/5.0 " + "x" * 240,
            more=123_456_789 * number,
        )
    return issued


def paths(issued: lifecycle.Issued) -> Iterator[str]:
    """Every page an owner may open, public ones included."""
    for route, name in own_routes():
        if name in NO_PAGES or TABLE[name][0].statuses["owner"] != 200:
            continue
        kwargs: dict[str, object] = {"organization": "acme"} if "organization" in route else {}
        if "period" in route:
            kwargs["period"] = Period.of(timezone.now()).previous.previous
        if "alert_id" in route:
            kwargs["alert_id"] = builders.alert(issued.key.organization).pk
        if "key_id" in route:
            kwargs["key_id"] = issued.key.public_id
        if "member_id" in route:
            kwargs["member_id"] = issued.key.organization.memberships.latest("pk").pk
        if "trial_id" in route:
            kwargs["trial_id"] = builders.trial(builders.key(issued.key.organization).key).pk
        if "invitation_id" in route:
            kwargs["invitation_id"] = issued.key.organization.invitations.latest("pk").public_id
        yield reverse(name, kwargs=kwargs)
    yield reverse("keys", kwargs={"organization": "acme"}) + "?q=nothing-like-it"
    yield reverse("keys", kwargs={"organization": "acme"}) + "?sort=-calls&label=team"
    yield reverse("usage", kwargs={"organization": "acme"}) + "?by=key&range=7d&bucket=hour&compare=on"
    refusals = reverse("refusals", kwargs={"organization": "acme"})
    yield f"{refusals}?request={'a' * 11}-3.17&key={issued.key.public_id}"
    yield f"{refusals}?request={'b' * 11}-3&code=REVOKED"
    usage = reverse("usage", kwargs={"organization": "acme"})
    yield f"{usage}?by=resource&meter=gpu-hours&show=quantity&compare=on"
    yield f"{usage}?range=custom&start=2000-01-01&end=2000-12-31&key={issued.key.public_id}"
    yield f"{usage}?range=24h&table=time&by=resource&bucket=month"
    yield "/o/no-such-organization/"
    yield from (reverse(name) for name in ACCOUNT_PAGES)


def violations(page: Page) -> list[object]:
    results = Axe().run(page, options={"resultTypes": ["violations"]})
    found: list[dict[str, Any]] = results.response["violations"]
    return [{"rule": each["id"], "at": [node["html"][:200] for node in each["nodes"][:3]]} for each in found]


def look(page: Page, url: str) -> list[object]:
    """What is wrong with the page at `url`."""
    page.goto(url)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return ([f"{wide} px too wide"] if wide > 0 else []) + violations(page)


@pytest.mark.parametrize(("scheme", "width"), [("light", 320), ("dark", 1280)])
def test_every_page_of_an_owner(
    portal: Portal, visitor: Callable[..., Visitor], scheme: str, width: int
) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice, name="Acme " + LONG[:90])
    builders.member(builders.user("a-colleague-with-a-rather-long-address"), acme)
    builders.invitation(acme, f"{LONG[:60]}@example.com")
    issued = fill(acme)
    come = visitor(color_scheme=scheme, viewport={"width": width, "height": 800})
    portal.sign_in(come, alice)
    wrong = {}
    for path in paths(issued):
        found = look(come.page, portal.url + path)
        if found:
            wrong[path] = found
    # Chromium calls a 404 page an error; it is one of those that we came to see.
    come.complaints = [each for each in come.complaints if "404 (Not Found)" not in each]
    assert wrong == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_of_a_visitor_and_of_a_newcomer(
    portal: Portal, visitor: Callable[..., Visitor], scheme: str
) -> None:
    come = visitor(color_scheme=scheme, viewport={"width": 320, "height": 800})
    wrong = {}
    for path in ["/", "/docs/", "/docs/gateway/", *(reverse(name) for name in VISITOR_PAGES)]:
        if found := look(come.page, portal.url + path):
            wrong[path] = found
    portal.sign_in(come, builders.user("new"))
    if found := look(come.page, f"{portal.url}/welcome/"):
        wrong["welcome"] = found
    come.page.locator("#id_organization").fill("Acme")
    come.page.get_by_role("button", name="Create and show my key").click()
    come.page.locator("#secret").wait_for()
    if found := violations(come.page):
        wrong["the first key"] = found
    come.page.goto(f"{portal.url}/o/acme/")
    if found := violations(come.page):
        wrong["an empty overview"] = found
    assert wrong == {}
