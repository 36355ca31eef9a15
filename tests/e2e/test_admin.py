"""Every page of the admin and of /staff/ in a real browser, under the strict content security policy.

A violation of the policy, an error in the console or an answer of 500 and above fails the test.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, Response, expect

from keys import lifecycle
from keys.models import AuditEvent, Key, Membership, Organization, Policy, Scope
from tests import builders
from tests.e2e.conftest import Portal, Visitor
from usage.models import Spool


@pytest.fixture
def key(portal: Portal) -> Key:
    """A key with a history, among enough rows that every part of the pages shows."""
    now = timezone.now()
    who = lifecycle.command_actor()
    acme = builders.organization("acme", builders.user("alice"), name="Acme Maps")
    builders.member(builders.user("bob"), acme)
    for name in ("Staging", "Mobile app", "Batch import"):
        builders.key(acme, name=name, scopes=("tiles:read",), expires_at=now + dt.timedelta(days=5))
    issued = builders.key(acme, name="Production", scopes=("tiles:read", "routes:write"), rates=["10/second"])
    lifecycle.rotate_key(who, issued.key, overlap=dt.timedelta(hours=1), now=now)
    spool = Spool.objects.create(id="aaaaaaaaaaa", host="web-1", pid=7, started_at=now, watermark=now)
    spool.segments.create(number=1)
    for days in range(30):
        hour = (now - dt.timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
        for outcome, calls in (("VALID", 900 + 37 * days % 400), ("EXPIRED", 12)):
            builders.rollup(
                organization=acme,
                hour=hour,
                key=issued.key,
                meter="requests",
                outcome=outcome,
                booked_period=hour.date().replace(day=1),
                calls=calls,
                quantity=calls,
            )
    return issued.key


@pytest.fixture
def staff(portal: Portal, visitor: Callable[..., Visitor], key: Key) -> Iterator[Page]:
    """The browser of a member of staff, in which nothing may go wrong."""
    come = visitor(viewport={"width": 1280, "height": 900})
    portal.sign_in(come, builders.staff("sam"))
    failed: list[str] = []

    def answered(answer: Response) -> None:
        if answer.status >= 500:
            failed.append(answer.url)

    come.page.on("response", answered)
    yield come.page
    # A form that is shown again with its errors answers 400, which Chromium reports.
    come.complaints = [each for each in come.complaints if "status of 400" not in each]
    assert failed == []


def addresses(key: Key) -> list[str]:
    """Every page of the admin and of /staff/ that can be opened."""
    objects: dict[str, Any] = {
        "keys_organization": key.organization,
        "keys_membership": Membership.objects.first(),
        "keys_scope": Scope.objects.first(),
        "keys_policy": Policy.objects.first(),
        "keys_key": key,
        "keys_auditevent": AuditEvent.objects.first(),
        "portal_user": Membership.objects.get(role="owner").user,
        "usage_spool": Spool.objects.first(),
    }
    pages = [reverse(name) for name in ("admin:index", "staff", "staff_usage", "staff_find_key")]
    pages += [reverse("admin:app_list", args=[app]) for app in ("keys", "portal", "usage", "auth")]
    for name, found in objects.items():
        pages.append(reverse(f"admin:{name}_changelist"))
        pages.append(reverse(f"admin:{name}_change", args=[found.pk]))
        if name not in ("keys_auditevent", "usage_spool"):
            pages.append(reverse(f"admin:{name}_add"))
    pages.append(reverse("admin:keys_key_rotate", args=[key.pk]))
    pages.append(reverse("admin:auth_group_changelist"))
    pages.append(reverse("admin:auth_group_add"))
    pages.append(reverse("admin:password_change"))
    pages.append(reverse("admin:auth_user_password_change", args=[objects["portal_user"].pk]))
    return pages


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["staff", "staff_usage", "staff_find_key"])
def test_staff_pages_are_accessible_and_fit_a_small_phone(
    staff: Page, portal: Portal, name: str, scheme: Any
) -> None:
    staff.emulate_media(color_scheme=scheme)
    staff.set_viewport_size({"width": 320, "height": 800})
    staff.goto(portal.url + reverse(name))
    wide = staff.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    found = Axe().run(staff, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_keeps_the_policy(staff: Page, portal: Portal, key: Key, scheme: Any) -> None:
    staff.emulate_media(color_scheme=scheme)
    for address in addresses(key):
        response = staff.goto(portal.url + address)
        assert response is not None
        assert response.status == 200, address
        assert "script-src 'self'" in response.headers["content-security-policy"]
        expect(staff.locator("h1").first).to_be_visible()


def test_staff_make_a_key_by_hand_and_revoke_it(staff: Page, portal: Portal, key: Key) -> None:
    staff.goto(portal.url + reverse("admin:keys_key_add"))
    staff.locator(".select2-selection").first.click()
    staff.locator(".select2-search__field").fill("acme")
    staff.get_by_role("option", name="Acme Maps").click()
    staff.get_by_label("Name:").fill("Made by staff")
    staff.locator("#id_scopes_from").select_option(label="portal:verify")
    staff.locator("#id_scopes_add").click()
    staff.get_by_role("button", name="Save").click()
    secret = staff.locator("#secret").inner_text()
    assert re.fullmatch(r"lk_live_[0-9A-Za-z]{38}", secret)
    assert secret not in staff.url
    expect(staff.get_by_role("button", name="Copy secret")).to_be_visible()
    made = Key.objects.get(name="Made by staff")
    assert [scope.name for scope in made.scopes.all()] == ["portal:verify"]

    # The whole key, pasted into the list's search, leads to the key and stands in no address.
    seen: list[str] = []
    staff.on("request", lambda request: seen.append(request.url))
    staff.goto(portal.url + reverse("admin:keys_key_changelist"))
    staff.locator("#searchbar").fill(secret)
    staff.get_by_role("button", name="Search").click()
    expect(staff).to_have_url(portal.url + reverse("admin:keys_key_change", args=[made.pk]))
    assert not [url for url in seen if secret[8:] in url]

    staff.goto(portal.url + reverse("admin:keys_key_changelist"))
    staff.get_by_role("row", name="Made by staff").get_by_role("checkbox").check()
    staff.get_by_label("Action:").select_option("Revoke…")
    staff.get_by_role("button", name="Run").click()
    expect(staff.get_by_text("Made by staff")).to_be_visible()
    staff.get_by_label("Reason").fill("Found in a public repository")
    staff.get_by_role("button", name="Revoke").click()
    expect(staff.get_by_text("1 key revoked.")).to_be_visible()
    made.refresh_from_db()
    assert made.revoked_reason == "Found in a public repository"


def test_staff_find_a_pasted_key_and_rotate_it(staff: Page, portal: Portal, key: Key) -> None:
    issued = builders.key(key.organization, name="Pasted")
    staff.goto(portal.url + reverse("staff_find_key"))
    staff.get_by_label("The whole key").fill(issued.plaintext)
    staff.get_by_role("button", name="Find").click()
    staff.get_by_role("link", name="Pasted").click()
    expect(staff.get_by_role("heading", name="Pasted")).to_be_visible()
    staff.get_by_role("link", name="Rotate").click()
    staff.get_by_label("1 hour").check()
    staff.get_by_role("button", name="Rotate").click()
    assert staff.locator("#secret").inner_text() != issued.plaintext


def test_the_key_form_shows_what_was_wrong(staff: Page, portal: Portal, key: Key) -> None:
    staff.goto(portal.url + reverse("admin:keys_key_change", args=[key.pk]))
    staff.get_by_label("Networks:").fill("10.0.0.1/8")
    staff.get_by_role("button", name="Save", exact=True).click()
    expect(staff.get_by_text("did you mean 10.0.0.0/8?")).to_be_visible()


def test_organizations_take_a_new_member_and_are_suspended_on_their_page(
    staff: Page, portal: Portal, key: Key
) -> None:
    builders.user("carol")
    organization = Organization.objects.get()
    staff.goto(portal.url + reverse("admin:keys_organization_change", args=[organization.pk]))
    staff.get_by_role("link", name="Add another New member").or_(
        staff.get_by_role("button", name="Add another New member")
    ).click()
    staff.locator("#memberships-2-0 .select2-selection").click()
    staff.locator(".select2-search__field").fill("carol")
    staff.get_by_role("option", name="carol@example.com").click()
    staff.get_by_role("button", name="Save", exact=True).click()
    expect(staff.get_by_text("was changed successfully")).to_be_visible()
    assert organization.memberships.filter(user__email="carol@example.com").exists()

    staff.goto(portal.url + reverse("admin:keys_organization_change", args=[organization.pk]))
    staff.get_by_label("Action:").select_option("Suspend…")
    staff.get_by_role("button", name="Run").click()
    staff.get_by_label("Reason").fill("Unpaid")
    staff.get_by_role("button", name="Suspend").click()
    expect(staff.get_by_text("Suspended: Unpaid")).to_be_visible()
