"""A browser that is hard to please, before a real server on the test's own database.

The browser is Debian's Chromium, started once a module and ended with it: while it lives, Playwright's event
loop runs in this thread, which other modules need not know. Every visitor's page notes what must not be.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    sync_playwright,
)

from portal.models import User
from tests import builders
from tests.e2e.look import WATCH
from tests.faults.server import Server, free_port

# Before any script of the page: a violation of the content security policy becomes a console error.
LISTEN = """document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));"""

PRIVATE = ("/o/", "/accounts/", "/staff/", "/admin/", "/invitations/")  # no cache keeps these


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium; without one these tests are skipped, but never in CI."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium; CI needs one: apt-get install chromium")
        pytest.skip("no Chromium on this machine; apt-get install chromium, or name one in CHROMIUM")
    # Django refuses queries from a thread with a running event loop; Playwright's own is one, and idle.
    allowed = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            yield browser
            browser.close()
    finally:
        os.environ.pop("DJANGO_ALLOW_ASYNC_UNSAFE")
        if allowed is not None:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = allowed


class Visitor:
    """A page, and the complaints about it so far."""

    def __init__(self, context: BrowserContext) -> None:
        self.complaints: list[str] = []
        context.add_init_script(LISTEN)
        context.add_init_script(WATCH)
        self.context = context
        self.page: Page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.complaints.append(f"{said.text} ({said.location['url']})")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.complaints.append(f"another host is asked: {request.url}")

    def _answered(self, response: Response) -> None:
        kept = response.headers.get("cache-control", "")
        path = urlsplit(response.url).path
        if response.status >= 500:
            self.complaints.append(f"{response.status} ({response.url})")
        if path.startswith("/static/") and "immutable" not in kept:
            self.complaints.append(f"not kept for good: {kept} ({response.url})")
        if path.startswith(PRIVATE) and response.ok and "no-store" not in kept:
            self.complaints.append(f"kept by somebody: {kept} ({response.url})")


@pytest.fixture
def visitor(chromium: Browser) -> Iterator[Callable[..., Visitor]]:
    """Visitors with cookies of their own; options are `Browser.new_context`'s. At the end no complaint."""
    visitors: list[Visitor] = []

    def come(**options: object) -> Visitor:
        visitors.append(Visitor(chromium.new_context(**options)))  # type: ignore[arg-type]  # passed through
        return visitors[-1]

    yield come
    complaints = [complaint for each in visitors for complaint in each.complaints]
    for each in visitors:
        each.context.close()
    assert complaints == []


class Portal:
    """A real server: where it is, and the mails that it has sent."""

    def __init__(self, url: str, mails: Path) -> None:
        self.url = url
        self._mails = mails

    def sign_in(self, visitor: Visitor, person: User) -> None:
        """Give the visitor a session as `person`, who signed in a moment ago."""
        name = settings.SESSION_COOKIE_NAME
        cookie = builders.signed_in(Client(), person).cookies[name].value
        visitor.context.add_cookies([{"name": name, "value": cookie, "url": self.url}])

    def mails(self) -> list[str]:
        return [path.read_text() for path in sorted(self._mails.glob("*"), key=lambda p: p.stat().st_mtime)]


@pytest.fixture
def portal(transactional_db: None, journal_dir: Path, tmp_path: Path) -> Iterator[Portal]:
    """`manage.py serve` with its worker, on this test's database."""
    mails = tmp_path / "mails"
    mails.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = builders.environment(PORTAL_URL=url, EMAIL_URL=f"filemail://{mails}")
    with Server(own, log=tmp_path / "log", port=port):
        yield Portal(url, mails)
