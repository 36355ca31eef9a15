"""Pictures of every page, from a demo made for them: `python -m tests.screenshots FOLDER [--only TEXT]…`.

A portal is served from a folder of its own, and each page is taken light, dark and as on a phone.
`index.html` in FOLDER shows them all side by side; with `--readme` the few that README and the docs show are
written to static/pictures. No picture has a secret in it: pages that make one are only opened, never sent.
"""

import argparse
import html
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import django

ROOT = Path(__file__).resolve().parent.parent
URL: Final = "http://127.0.0.1:8000"  # what the pages say, wherever they are served
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
    return {
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": f"sqlite:///{folder / 'latchkey.sqlite3'}",
        "USAGE_JOURNAL_DIR": str(folder / "journal"),
        "EMAIL_URL": f"filemail://{folder / 'mails'}",
        "PORTAL_URL": URL,
        "PYTHONPATH": str(ROOT),
    }


def seed() -> Any:
    """The demo, with an invitation that waits. Returns its organization."""
    from django.core.management import call_command
    from django.utils import timezone

    from portal import demo
    from tests import builders

    call_command("migrate", verbosity=0, interactive=False)
    acme = demo.seed(timezone.now()).key.organization
    demo.renew_password()
    builders.invitation(acme, "colleague@example.com")
    return acme


def pages(acme: Any) -> Iterator[tuple[str, str, str]]:
    """(name, address, who opens it) of every page."""
    from django.urls import reverse
    from django.utils import timezone

    from tests.e2e.test_every_page import ACCOUNT_PAGES, NO_PAGES, VISITOR_PAGES
    from tests.portal.test_routes import TABLE, arguments, own_routes
    from usage.billing import Period

    key = acme.keys.filter(revoked_at=None).order_by("created_at").first()
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
    yield "billing_by_key", reverse("billing", kwargs={"organization": acme.slug}) + "?by=key", "owner"
    yield "not_found", "/o/nobody/", "owner"
    for name in ("index", "keys_key_changelist", "keys_organization_changelist", "portal_user_changelist"):
        yield f"admin_{name}", reverse(f"admin:{name}"), "staff"


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
            for who in ("visitor", "owner", "staff"):
                size = {"width": look.width, "height": look.height}
                come = Visitor(chromium.new_context(color_scheme=look.scheme, viewport=size))  # type: ignore[arg-type]  # plain texts and numbers
                if who != "visitor":
                    portal.sign_in(come, User.objects.get(email=f"{who}@example.com"))
                for name, address, by in wanted:
                    if by != who:
                        continue
                    come.page.goto(portal.url + address)
                    come.page.screenshot(path=folder / look.name / f"{name}.png", full_page=True)
                    if picture := PICTURES.get((name, look.name)):
                        come.page.screenshot(path=folder / picture)
                    taken.append(f"{look.name}/{name}")
                come.context.close()
        chromium.close()
    return taken


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
