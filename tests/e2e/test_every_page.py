"""Every page in a real browser, for each role: nothing that `tests.e2e.look` or a visitor complains about."""

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import LeakDoor, LeakResponse, Organization
from keys.permissions import Role
from tests import builders
from tests.e2e.conftest import Portal, Visitor
from tests.e2e.look import PHONE, SMALL, cut, look, violations
from tests.portal.test_routes import TABLE, arguments, own_routes
from usage import watch
from usage.billing import Period
from usage.models import Refusal, ResourceBound, ResponseRollup, SecretUse

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
# What moves although nothing should: elements with a transition or an animation of more than 10 ms.
STILL = """[...document.querySelectorAll("*")].filter((element) => {
  const style = getComputedStyle(element);
  return [style.transitionDuration, style.animationDuration].some((text) =>
    text.split(",").some((each) => parseFloat(each) * (each.trim().endsWith("ms") ? 1 : 1000) > 10));
}).map((element) => element.outerHTML.slice(0, 100))"""
# Which element has the focus (its number on the page), and whether anybody can see that it has.
FOCUS = """(() => {
  const element = document.activeElement;
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  const marked = outlined || style.boxShadow !== "none";
  return {
    number: element === document.body ? 0 : [...document.querySelectorAll("*")].indexOf(element),
    seen: marked && box.width > 0 && box.bottom > 0 && box.top < innerHeight,
    html: element.outerHTML.slice(0, 150),
  };
})()"""
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
            builders.rollup(
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
        builders.rollup(
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
    acme = issued.key.organization
    known: dict[str, object] = {
        "key_id": issued.key.public_id,
        "period": Period.of(timezone.now()).previous.previous,
        "member_id": acme.memberships.latest("pk").pk,
        "invitation_id": acme.invitations.latest("pk").public_id,
    }
    for route, name in own_routes():
        if name in NO_PAGES or TABLE[name][0].statuses["owner"] != 200:
            continue
        yield reverse(name, kwargs=arguments(route, acme, **known))
    yield reverse("keys", kwargs={"organization": "acme"}) + "?q=nothing-like-it"
    yield reverse("keys", kwargs={"organization": "acme"}) + "?sort=-calls&label=team"
    yield reverse("usage", kwargs={"organization": "acme"}) + "?by=key&range=7d&bucket=hour&compare=on"
    yield reverse("billing", kwargs={"organization": "acme"}) + "?by=key"
    refusals = reverse("refusals", kwargs={"organization": "acme"})
    yield f"{refusals}?request={'a' * 11}-3.17&key={issued.key.public_id}"
    yield f"{refusals}?request={'b' * 11}-3&code=REVOKED"
    usage = reverse("usage", kwargs={"organization": "acme"})
    yield f"{usage}?by=resource&meter=gpu-hours&show=quantity&compare=on"
    yield f"{usage}?range=custom&start=2000-01-01&end=2000-12-31&key={issued.key.public_id}"
    yield f"{usage}?range=24h&table=time&by=resource&bucket=month"
    yield from (reverse(name) for name in ACCOUNT_PAGES)


def closed(come: Visitor) -> None:
    """Chromium calls a page with the status 403 or 404 an error; those are what we came to see."""
    come.complaints = [each for each in come.complaints if not re.search("40[34] \\((Forbidden|Not F)", each)]


def wrong(come: Visitor, portal: Portal, paths: Iterable[str], **options: Any) -> dict[str, list[object]]:
    """What is wrong with each of the pages."""
    looked = {path: look(come.page, portal.url + path, **options) for path in paths}
    return {path: found for path, found in looked.items() if found}


def test_nothing_is_wrong_with_any_page_of_an_owner(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice, name="Acme " + LONG[:90])
    builders.member(builders.user("a-colleague-with-a-rather-long-address"), acme)
    builders.invitation(acme, f"{LONG[:60]}@example.com")
    issued = fill(acme)
    come = visitor(viewport=SMALL)
    portal.sign_in(come, alice)
    assert wrong(come, portal, paths(issued)) == {}
    assert wrong(come, portal, ["/o/no-such-organization/"], status=404) == {}
    # What a wide screen shows beside it; and nothing moves, as the visitor wishes.
    come.page.set_viewport_size({"width": 1280, "height": 800})
    console = ["/o/acme/", "/o/acme/keys/", "/o/acme/team/", "/o/acme/usage/"]
    assert wrong(come, portal, console) == {}
    assert come.page.evaluate(STILL) == []
    closed(come)


def test_nothing_is_wrong_with_the_pages_that_each_role_sees_in_its_way(
    portal: Portal, visitor: Callable[..., Visitor]
) -> None:
    acme = builders.organization("acme", owner=builders.user("alice"))
    issued = builders.key(acme)
    come = visitor(viewport=SMALL)
    for role in (Role.ADMIN, Role.DEVELOPER, Role.BILLING, Role.VIEWER):
        person = builders.user(role.value)
        builders.member(person, acme, role)
        portal.sign_in(come, person)
        seen, refused = (pages_of(role, issued, status) for status in (200, 403))
        # Of these pages a viewer's differ most from the owner's, which axe has seen.
        assert wrong(come, portal, seen, axe=role is Role.VIEWER) == {}, role
        assert wrong(come, portal, refused[:1], axe=False, status=403) == {}, role
    closed(come)


def pages_of(role: Role, issued: lifecycle.Issued, status: int) -> list[str]:
    """The organization's pages that answer this role so and that show something else to another."""
    acme = issued.key.organization
    return [
        reverse(name, kwargs=arguments(route, acme, key_id=issued.key.public_id))
        for route, name in own_routes()
        if route.startswith("o/<slug:organization>/")
        and name not in NO_PAGES
        and "period" not in route
        and TABLE[name][0].method == "GET"
        and TABLE[name][0].statuses["viewer"] in (200, 403)
        and TABLE[name][0].statuses[role.value] == status
        and (status == 403 or TABLE[name][0].statuses["viewer"] == 200 or "billing" in route)
    ]


def test_nothing_is_wrong_with_the_pages_of_a_visitor_and_of_a_newcomer(
    portal: Portal, visitor: Callable[..., Visitor]
) -> None:
    come = visitor(viewport=SMALL)
    public = ["/", "/docs/", *(reverse(name) for name in VISITOR_PAGES)]
    assert wrong(come, portal, public) == {}
    portal.sign_in(come, builders.user("new"))
    assert wrong(come, portal, ["/welcome/"]) == {}
    come.page.locator("#id_organization").fill("Acme")
    come.page.get_by_role("button", name="Create and show my key").click()
    come.page.locator("#secret").wait_for()
    assert violations(come.page) == []
    assert come.page.evaluate("document.documentElement.scrollWidth") == SMALL["width"]
    assert wrong(come, portal, ["/o/acme/"]) == {}


def test_tables_of_figures_are_not_cut_on_a_phone(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice, name="Acme Maps")
    key = builders.key(acme, name="Partner Northwind").key
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    for outcome, calls in (("VALID", 1_314_681), ("RATE_LIMITED", 14_379)):
        builders.rollup(
            organization=acme,
            hour=hour,
            key=key,
            meter="requests",
            outcome=outcome,
            booked_period=hour.date().replace(day=1),
            calls=calls,
            quantity=calls,
        )
    key.expires_at = None  # which is amiss
    key.save(update_fields=["expires_at"])
    watch.refresh([key], now)
    come = visitor(viewport=PHONE)
    usage = reverse("usage", kwargs={"organization": "acme"})
    own = [usage, f"{usage}?by=key&compare=on", reverse("docs_meters")]
    staffs = [reverse(name) for name in ("staff_usage", "staff_attention")]
    for person, paths in ((alice, own), (builders.staff("sam"), staffs)):
        portal.sign_in(come, person)
        assert {path for path in paths if cut(come.page, portal.url + path)} == set()
    assert come.page.locator("tbody tr").count() == 2


def test_a_picture_suits_the_chosen_theme_and_the_other_is_not_loaded(
    portal: Portal, visitor: Callable[..., Visitor]
) -> None:
    come = visitor(color_scheme="light")
    asked: list[str] = []
    come.page.on("request", lambda request: asked.append(request.url))
    come.page.goto(f"{portal.url}/docs/keys/")
    come.page.locator("[data-theme-choice=dark]").first.click()
    come.page.goto(f"{portal.url}/docs/")
    come.page.locator(".picture-dark").scroll_into_view_if_needed()
    come.page.wait_for_function("document.querySelector('.picture-dark').naturalWidth")
    assert not come.page.locator(".picture-light").is_visible()
    pictures = [url.rpartition("/")[2].partition(".")[0] for url in asked if "/pictures/" in url]
    assert pictures == ["overview-dark"]


def test_a_page_can_be_used_without_a_pointer(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    builders.key(builders.organization("acme", owner=alice))
    come = visitor(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    portal.sign_in(come, alice)
    page = come.page
    for path in ("/o/acme/", "/o/acme/keys/", "/o/acme/team/"):
        page.goto(portal.url + path)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip-link"
        unseen, reached = [], set()
        for _ in range(60):
            focus = page.evaluate(FOCUS)
            if focus["number"] in reached or not focus["number"]:
                break
            reached.add(focus["number"])
            if not focus["seen"]:
                unseen.append(focus["html"])
            page.keyboard.press("Tab")
        assert unseen == [], path
        assert len(reached) > 15, path
        page.goto(portal.url + path)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main", path
