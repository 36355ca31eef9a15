"""Pictures of every page, from a demo made for them: `python -m tests.screenshots FOLDER [--only TEXT]…`.

A portal is served from a folder of its own, and each page is taken light, dark and as on a phone.
`index.html` in FOLDER shows them all side by side; with `--readme` the few that README and the docs show are
written to static/pictures. No picture has a secret in it: pages that make one are only opened, never sent.
"""

import argparse
import datetime as dt
import html
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import django

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
URL: Final = "http://127.0.0.1:8000"  # what the pages say, wherever they are served
FAILURE: Final = "/failure/"  # no page of the portal, which fails on none
DAY: Final = dt.timedelta(days=1)
PICTURES: Final = {  # page, look → file in static/pictures
    ("overview", "light"): "overview.png",
    ("overview", "dark"): "overview-dark.png",
    ("key", "light"): "key.png",
}


class Look(NamedTuple):
    """How a page is looked at."""

    name: str
    scheme: str
    width: int
    height: int


LOOKS: Final = (
    Look("light", "light", 1280, 800),
    Look("dark", "dark", 1280, 800),
    Look("phone", "light", 390, 844),
)


def environment(folder: Path) -> dict[str, str]:
    """Settings for a portal in this folder, and nothing of the developer's own."""
    terms = folder / "terms.txt"
    terms.write_text("Keys are yours to keep secret.\n\nWe count calls, and keep the counts for 400 days.")
    return {
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": f"sqlite:///{folder / 'latchkey.sqlite3'}",
        "USAGE_JOURNAL_DIR": str(folder / "journal"),
        "EMAIL_URL": f"filemail://{folder / 'mails'}",
        "PORTAL_URL": URL,
        "TERMS": str(terms),
        "TERMS_VERSION": "2026-06-01",
        "PYTHONPATH": str(ROOT),
    }


def seed() -> Any:
    """The demo with what waits in it: an invitation, a request for a scope, more keys than a page has; and a
    newcomer who has not accepted the terms. Returns its organization."""
    from django.core.management import call_command
    from django.utils import timezone

    from keys.models import Key
    from portal import demo, terms
    from portal.models import User
    from tests import builders
    from usage import watch

    call_command("migrate", verbosity=0, interactive=False)
    now = timezone.now()
    acme = demo.seed(now).key.organization
    demo.renew_password()
    builders.invitation(acme, "colleague@example.com")
    builders.scope_request(acme, "billing:refund")
    Key.objects.bulk_create(
        Key(organization=acme, name=f"Kiosk {n}", created_at=now - 32 * DAY, expires_at=now + 60 * DAY)
        for n in range(150)
    )
    builders.user("colleague")
    for person in User.objects.all():
        terms.accept(person, terms.version(), now)
    builders.user("newcomer")
    watch.refresh(list(acme.keys.select_related("organization")), now)  # as the worker will before long
    return acme


def pages(acme: Any) -> Iterator[tuple[str, str, str]]:
    """(name, address, who opens it) of every page."""
    from django.urls import reverse
    from django.utils import timezone

    from tests.e2e.test_every_page import ACCOUNT_PAGES, NO_PAGES, VISITOR_PAGES
    from tests.portal.test_routes import TABLE, arguments, own_routes
    from usage.billing import Period

    key = acme.keys.filter(revoked_at=None).exclude(secrets=None).order_by("created_at").first()
    known = {
        "key_id": key.public_id,
        "period": Period.of(timezone.now()).previous,  # the demo has closed it
        "member_id": acme.memberships.latest("pk").pk,
        "invitation_id": acme.invitations.get().public_id,
        "trial_id": acme.trials.latest("pk").pk,
    }
    for route, name in own_routes():
        statuses = TABLE[name][0].statuses
        if name in NO_PAGES or TABLE[name][0].method != "GET":
            continue
        who = "owner" if statuses["owner"] == 200 else "staff" if statuses["staff"] == 200 else ""
        if statuses["anonymous"] == 200:
            who = "visitor"
        if who:
            yield name, reverse(name, kwargs=arguments(route, acme, **known)), who
    yield from ((name, reverse(name), "owner") for name in ACCOUNT_PAGES)
    yield from ((name, reverse(name), "visitor") for name in VISITOR_PAGES)
    here = {"organization": acme.slug}
    yield "keys_page", reverse("keys", kwargs=here) + "?page=2", "owner"
    yield "keys_none", reverse("keys", kwargs=here) + "?q=nothing-like-it", "owner"
    yield "billing_by_key", reverse("billing", kwargs=here) + "?by=key", "owner"
    yield "usage_compared", reverse("usage", kwargs=here) + "?by=key&range=7d&compare=on", "owner"
    yield "not_found", "/o/nobody/", "owner"
    yield "not_allowed", reverse("key_new", kwargs=here), "viewer"
    yield "keys_of_viewer", reverse("keys", kwargs=here), "viewer"
    yield "statement_print", reverse("statement", kwargs=here | {"period": known["period"]}), "owner"
    yield "terms_to_accept", reverse("terms_accept"), "newcomer"
    invited = {"invitation_id": known["invitation_id"]}
    yield "invitation_signed_in", reverse("invitation", kwargs=invited), "colleague"
    yield "terms", reverse("terms"), "visitor"
    yield "failure", FAILURE, "visitor"
    yield "form_expired", reverse("account_login"), "visitor"
    for name in ("index", "keys_key_changelist", "keys_organization_changelist", "portal_user_changelist"):
        yield f"admin_{name}", reverse(f"admin:{name}"), "staff"
    yield "admin_keys_key_rotate", reverse("admin:keys_key_rotate", args=[key.pk]), "staff"
    yield "admin_keys_policy_change", reverse("admin:keys_policy_change", args=[acme.policy_id]), "staff"


def take(folder: Path, only: list[str]) -> list[str]:
    """Take the pictures; the names of those that were taken, as `light/overview`."""
    from playwright.sync_api import sync_playwright

    from portal.models import User
    from tests.e2e.conftest import Portal, Visitor
    from tests.faults.server import Server, free_port

    acme = seed()
    wanted = [each for each in pages(acme) if not only or any(text in each[0] for text in only)]
    port, taken = free_port(), []
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's own event loop is idle
    log = Path(os.environ["USAGE_JOURNAL_DIR"]).parent / "log"
    with Server(os.environ, log=log, port=port), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        portal = Portal(f"http://127.0.0.1:{port}", folder)
        for look in LOOKS:
            (folder / look.name).mkdir(parents=True, exist_ok=True)
            for who in ("visitor", "owner", "staff", "viewer", "colleague", "newcomer"):
                size = {"width": look.width, "height": look.height}
                come = Visitor(chromium.new_context(color_scheme=look.scheme, viewport=size))  # type: ignore[arg-type]  # plain texts and numbers
                if who != "visitor":
                    portal.sign_in(come, User.objects.get(email=f"{who}@example.com"))
                for name, address, by in wanted:
                    if by != who:
                        continue
                    _open(come.page, name, portal.url + address)
                    come.page.screenshot(path=folder / look.name / f"{name}.png", full_page=True)
                    if picture := PICTURES.get((name, look.name)):
                        come.page.screenshot(path=folder / picture)
                    taken.append(f"{look.name}/{name}")
                come.context.close()
        chromium.close()
    return taken


def _open(page: "Page", name: str, address: str) -> None:
    """The page as its name says: on paper, after a form without its token, as a failure."""
    from django.template.loader import render_to_string

    from portal import brand

    page.emulate_media(media="print" if name.endswith("_print") else "screen")
    if address.endswith(FAILURE):
        body = render_to_string("500.html", brand.looks())
        page.route(address, lambda route: route.fulfill(status=500, content_type="text/html", body=body))
    page.goto(address)
    if name == "form_expired":
        page.evaluate("document.querySelector('[name=csrfmiddlewaretoken]').remove()")
        page.evaluate("document.querySelector('main form').submit()")
        page.wait_for_url(address)
        page.wait_for_load_state()


def _chromium() -> str:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise SystemExit("There is no Chromium; apt-get install chromium, or name one in CHROMIUM.")
    return path


def sheet(folder: Path, taken: list[str]) -> None:
    """`index.html`: all of them side by side."""
    figures = "".join(
        f'<figure><img src="{html.escape(name)}.png" width="400"><figcaption>{html.escape(name)}</figcaption>'
        "</figure>"
        for name in sorted(taken, key=lambda name: name.partition("/")[::-1])
    )
    head = "<!doctype html><meta charset=utf-8><title>Pages</title>"
    (folder / "index.html").write_text(f"{head}<main>{figures}</main>")


def main() -> int:
    """Take them, and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="pages with this name")
    parser.add_argument("--readme", action="store_true", help="write README's pictures too")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as own:
        os.environ.update(environment(Path(own)))
        (Path(own) / "journal").mkdir()
        django.setup()
        taken = take(folder, options.only)
    sheet(folder, taken)
    if options.readme:
        pictures = ROOT / "static" / "pictures"
        pictures.mkdir(exist_ok=True)
        for name in PICTURES.values():
            shutil.copyfile(folder / name, pictures / name)
    sys.stdout.write(f"{len(taken)} pictures: {folder / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
