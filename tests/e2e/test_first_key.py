"""A newcomer in a real browser: sign-up, first key, a call by curl, its count, the end of the key."""

import re
import subprocess
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from django.utils import timezone
from playwright.sync_api import Error, Page, expect

from keys import lifecycle
from keys.models import Key
from tests import builders
from tests.e2e.conftest import Portal, Visitor
from tests.waiting import until


def curl(line: str) -> tuple[int, str]:
    """Run the line as a person would; return the status and the code."""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20, check=True)
    status = re.search(r"^HTTP/\S+ (\d{3})", done.stdout)
    code = re.search(r"^x-portal-code: (\S+)", done.stdout, re.MULTILINE | re.IGNORECASE)
    assert status, done.stdout
    assert code, done.stdout
    return int(status[1]), code[1]


def accepted(page: Page) -> str:
    return page.locator(".stat", has_text="Accepted, 30 days").locator(".stat-value").inner_text()


def test_from_the_landing_page_to_a_revoked_key(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    page = visitor().page
    pages = []

    # The landing page leads to sign-up.
    page.goto(portal.url)
    page.locator(f"main a[href^='{urlsplit(portal.url).path or '/'}accounts/signup/']").first.click()
    pages.append(page.url)
    page.get_by_label("Email").fill("new@example.com")
    page.get_by_label("Password", exact=False).first.fill(builders.PASSWORD)
    page.locator("main form button[type=submit]").first.click()

    # The code from the mail.
    code = re.search(r"^Subject: (\S+) is your", until(portal.mails)[-1], re.MULTILINE)
    assert code is not None
    page.locator("input[name=code]").fill(code[1])
    page.locator("main form button[type=submit]").first.click()

    # One step: organization and first key.
    page.wait_for_url(f"{portal.url}/welcome/")
    pages.append(page.url)
    page.locator("#id_organization").fill("Acme Maps")
    expect(page.locator("#id_slug")).to_have_value("acme-maps")
    page.get_by_role("button", name="Create and show my key").click()

    # The secret, once, and a line to try.
    secret = page.locator("#secret").inner_text()
    assert re.fullmatch(r"lk_live_[0-9A-Za-z]{38}", secret)
    pages.append(page.url)
    assert len(pages) <= 3
    line = page.locator("#curl").inner_text()
    assert secret in line
    expect(page.locator("#first-call")).to_contain_text("Waiting for the first call")
    assert curl(line) == (200, "VALID")
    expect(page.locator("#first-call")).to_contain_text("200 Received VALID", timeout=20_000)
    assert page.locator("#secret").inner_text() == secret
    assert curl(line) == (200, "VALID")
    assert curl(line.replace(secret, "nonsense")) == (401, "MALFORMED")

    # The calls show on the key's page within seconds; the secret does not.
    page.get_by_role("link", name="I have copied it").click()
    until(lambda: bool(page.reload()) and accepted(page) == "2")
    assert secret not in page.content()
    assert page.locator(".chart-bar").count() == 30
    expect(page.get_by_role("region", name="Table of secrets")).to_contain_text("127.0.0.1")

    # The browser has not kept the page with the secret, and the welcome is over.
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        page.go_back()
    page.wait_for_url("chrome-error://**")
    page.goto(f"{portal.url}/welcome/")
    page.wait_for_url(f"{portal.url}/o/acme-maps/")
    assert Key.objects.count() == 1

    # The API's reference tries a call with the key, and keeps it nowhere.
    page.goto(f"{portal.url}/docs/api/")
    me = page.locator("#me")
    me.get_by_role("button", name="Send GET").click()
    expect(me.get_by_role("status").last).to_contain_text("Paste a key first")
    page.get_by_label("Your key").fill(secret)
    me.get_by_role("button", name="Send GET").click()
    expect(me.get_by_role("status").last).to_contain_text("200 OK", timeout=20_000)
    expect(me.locator("[data-try-body]")).to_contain_text("My first key")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator("#create_key").get_by_role("button", name="Send POST").click()
    expect(page.locator("#create_key [data-try-status]")).to_have_text("")
    assert secret not in page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    page.reload()
    expect(page.get_by_label("Your key")).to_have_value("")
    page.goto(f"{portal.url}/o/acme-maps/")

    # The end of the key: asked first, then refused everywhere.
    page.get_by_role("link", name="API keys").first.click()
    page.get_by_role("link", name="My first key").click()
    page.get_by_role("link", name="Revoke").click()
    expect(page.get_by_text("This key is in use")).to_be_visible()
    page.get_by_label("Reason").fill("Only a test")
    page.get_by_role("button", name="Revoke key").click()
    expect(page.get_by_role("status").first).to_contain_text("Revoked “My first key”")
    until(lambda: curl(line) == (401, "REVOKED"))
    expect(page.locator(".page-heading .badge")).to_have_text("Revoked")


def test_a_double_click_still_shows_the_secret(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice)
    come = visitor()
    portal.sign_in(come, alice)
    page = come.page
    page.goto(f"{portal.url}/o/acme/keys/new/")
    page.get_by_label("Name").fill("Clicked twice")
    page.get_by_role("button", name="Create key").dblclick()
    expect(page.locator("#secret")).to_contain_text("lk_live_")
    assert acme.keys.count() == 1


def test_a_form_that_comes_back_begins_at_its_first_mistake(
    portal: Portal, visitor: Callable[..., Visitor]
) -> None:
    alice = builders.user("alice")
    builders.organization("acme", owner=alice)
    come = visitor()
    portal.sign_in(come, alice)
    page = come.page
    page.goto(f"{portal.url}/o/acme/keys/new/")
    page.get_by_label("Name").fill("Backend")
    page.get_by_text("Allowed networks, rate limits").click()
    page.get_by_label("Rate limits").fill("ten/second")
    page.get_by_label("Metadata").fill("nonsense")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_label("Rate limits")).to_be_focused()
    expect(page.get_by_label("Name")).to_have_value("Backend")


def test_a_key_can_be_made_without_any_script(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice)
    builders.scope("orders:read", "Read orders")
    come = visitor(java_script_enabled=False)
    portal.sign_in(come, alice)
    page = come.page
    page.goto(f"{portal.url}/o/acme/keys/new/")
    page.get_by_label("Name").fill("Plain HTML")
    page.get_by_label("orders:read").check()
    page.get_by_role("button", name="Create key").click()
    expect(page.locator("#secret")).to_contain_text("lk_live_")
    assert [scope.name for scope in acme.keys.get().scopes.all()] == ["orders:read"]


def test_filters_take_effect_without_a_reload(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice)
    builders.key(acme, name="Backend")
    lifecycle.revoke_key(lifecycle.command_actor(), builders.key(acme, name="Old").key, now=timezone.now())
    come = visitor()
    portal.sign_in(come, alice)
    page = come.page
    page.goto(f"{portal.url}/o/acme/keys/")
    page.evaluate("window.stillHere = true")
    page.get_by_label("Search keys").press_sequentially("back")
    expect(page.get_by_role("link", name="Old", exact=True)).to_have_count(0)
    expect(page.get_by_role("link", name="Backend")).to_be_visible()
    expect(page.get_by_label("Search keys")).to_be_focused()
    expect(page.locator("#keys-count")).to_have_text("1 key")  # said to those who do not see the list
    expect(page.get_by_role("link", name="Clear")).to_be_visible()
    page.get_by_label("Search keys").fill("")
    page.get_by_label("State").select_option("revoked")
    expect(page.get_by_role("link", name="Old", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Backend")).to_have_count(0)
    assert "state=revoked" in page.url
    assert page.evaluate("window.stillHere")
    page.goto(f"{portal.url}/o/acme/activity/")
    page.evaluate("window.stillHere = true")
    page.get_by_label("What").select_option("key.revoked")
    expect(page.get_by_text("Key created")).to_have_count(1)  # the choice in the filter itself
    assert page.evaluate("window.stillHere")
