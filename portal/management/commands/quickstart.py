"""`quickstart`: from an empty checkout to a portal that answers, with a demo in it, in one command.

It makes `var/` and its `.env`, migrates, seeds an empty database, prints what to try, and serves until Ctrl-C
through the same code as `serve`. A second run keeps the data, and a database of somebody else's is never
changed.
"""

import http.client
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.lifecycle import Issued
from keys.management.base import REFUSED, PortalCommand, refuse
from portal import demo, folder, serving
from portal.checks import is_loopback

POLL_SECONDS = 0.1  # how often the new server is asked whether it is ready


class Command(PortalCommand):
    help = "Set up and serve a portal with a demo in it, from an empty checkout."
    requires_system_checks = []  # they come later, when there is something to check

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
        parser.add_argument("--port", type=int, default=8000, help="default: 8000")
        parser.add_argument(
            "--reset", action="store_true", help="remove what an earlier run made, and begin again"
        )

    def handle(self, *args: Any, host: str, port: int, reset: bool, **options: Any) -> None:
        base = _base_url(host, port)
        if not is_loopback(host) and not folder.url_is_chosen():
            refuse(
                "quickstart speaks plain http, so --host must be an address of this machine alone "
                "(127.0.0.1); to let others in, set PORTAL_URL to the https:// address of a proxy before it."
            )
        try:
            serving.bindable(host, port)
        except OSError as error:
            refuse(serving.why_not(host, port, error), REFUSED)
        try:
            if reset:
                folder.reset()
            lock = folder.hold()  # before anything is changed that another run may be using
            if changed := folder.prepare(base):
                _begin_again(changed, lock)
        except folder.Refused as error:
            refuse(str(error), REFUSED)
        if any(message.is_serious() and not message.is_silenced() for message in run_checks()):
            self.check()  # says which, and ends here; warnings are left to `serve`
        if not demo.is_somebody_elses():
            call_command("migrate", verbosity=0, interactive=False)
        text, ended = self._prepare(base), threading.Event()
        # What is printed works as printed: so not before the server takes calls.
        printer = threading.Thread(target=self._print_when_ready, args=(text, base, ended), daemon=True)
        printer.start()
        try:
            call_command("serve", host=host, port=port)
        finally:
            ended.set()
            printer.join()
            os.close(lock)

    def _print_when_ready(self, text: str, base: str, ended: threading.Event) -> None:
        if _wait_until_ready(base, ended):
            with suppress(OSError):  # nobody reads; the server is what matters
                self.stdout.write(text)
                self.stdout.flush()

    def _prepare(self, base: str) -> str:
        """Seed an empty database; return what there is to try."""
        now = timezone.now()
        organization = demo.find()
        issued: Issued | None = None
        if organization is None and demo.is_empty():
            self.say("Making the demo …")
            issued = demo.seed(now)
            organization = issued.key.organization
        elif organization is not None:
            try:
                issued = demo.working_key(organization, now)
            except lifecycle.Refused as error:
                self.say(f"The demo's key could not be renewed: {error.sentence}")
        portal = settings.PORTAL_URL
        lines = [f"\n{settings.PORTAL_NAME} at {portal}/", ""]
        if organization is None:
            lines += [
                "This database has data of its own: nothing was seeded, and nothing in it was changed.",
                "",
            ]
        else:
            lines += [
                f"  dashboard  {portal}/o/{organization.slug}/",
                f"  staff      {portal}/admin/",
                "",
                f"Sign in with the password {demo.renew_password()} (new at every start) as",
                "",
                *(f"  {email:<24}{role or 'staff'}" for email, role in demo.PEOPLE.items()),
                "",
            ]
        if issued is not None:
            lines += _to_try(issued, base, now.strftime("%Y-%m"))
        return "\n".join([*lines, "Ctrl-C ends it.", ""])


def _to_try(issued: Issued, base: str, month: str) -> list[str]:
    """The working key, and commands that can be pasted as they are."""

    def curl(credential: str, scope: str) -> str:
        return f'  curl -i -H "Authorization: Bearer {credential}" "{base}/gateway/authorize?scope={scope}"'

    allowed = demo.QUICKSTART_SCOPES[-1]
    return [
        f"A working key, new at every start, with {' and '.join(demo.QUICKSTART_SCOPES)}:",
        "",
        f"  {issued.plaintext}",
        "",
        "Ask the gateway: allowed, refused for a scope that it lacks, refused for junk",
        "",
        curl(issued.plaintext, allowed),
        curl(issued.plaintext, demo.LACKING_SCOPE),
        curl("junk", allowed),
        "",
        "and count what was billed",
        "",
        f"  {_manage()} export_billing --period {month} --allow-open --organization {demo.SLUG}",
        "",
    ]


def _manage() -> str:
    """How this command was run, for the next one."""
    uv = os.environ.get("UV")  # set by `uv run`
    if not uv:
        return "python manage.py"
    own = Path(settings.BASE_DIR, ".uv", "bin", "uv")  # where README's line puts it if it was missing
    return ".uv/bin/uv run manage.py" if Path(uv) == own else "uv run manage.py"


def _base_url(host: str, port: int) -> str:
    """Where this server can be reached from this machine."""
    if not 1 <= port <= 65_535:
        refuse("--port is a number from 1 to 65535.")
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _wait_until_ready(base: str, ended: threading.Event) -> bool:
    """True once the server takes calls; False if it has ended."""
    host, _, port = base.removeprefix("http://").rpartition(":")
    while not ended.wait(POLL_SECONDS):
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return True
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    return False


def _begin_again(changed: dict[str, str], lock: int) -> None:
    """Run this command again in this process, so that the settings read what has been made. The folder
    stays locked."""
    arguments = [argument for argument in sys.orig_argv[1:] if argument != "--reset"]
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {**os.environ, **changed, **folder.hand_on(lock)}
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606  it needs no shell
