"""`serve`: the production server, with the worker beside it as a process of its own."""

import argparse
import fcntl
import json
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import CommandParser
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from keys.management.base import REFUSED, PortalCommand, refuse
from portal import folder, restart, server, serving
from portal.checks import MAX_WORKERS


class Command(PortalCommand):
    help = "Serve the portal and the gateway until Ctrl-C; the worker runs beside it."
    requires_system_checks = []  # run below, so that `quickstart` gets them too

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=_number(1, 65_535), default=8000)
        parser.add_argument("--workers", type=_number(1, MAX_WORKERS), metavar="N")
        parser.add_argument("--role", choices=sorted(serving.ROLES), default="all")
        parser.add_argument("--no-worker", action="store_true", help="leave the worker to somebody else")
        parser.add_argument("--check", action="store_true", help="only say whether it would start")

    def handle(self, *args: Any, **options: Any) -> None:
        settings.WORKERS = options["workers"] or settings.WORKERS  # before the checks, which look at it
        self.check(display_num_errors=False)
        host, port = options["host"], options["port"]
        before = restart.predecessor()
        listener = None
        if not options["check"]:
            listener = _listen(host, port) if before is None else before.listener
        refuse_unapplied_migrations()
        if options["role"] != "gateway":
            build_static_files()
        if listener is None:
            return
        folder.mark_in_use()  # until this process ends
        serving.release_database()
        http = server.make(
            f"portal.wsgi:{serving.ROLES[options['role']]}",
            listener=listener,
            workers=settings.WORKERS,
        )
        housekeeping = None if options["no_worker"] else serving.Housekeeping()
        http.on_hangup = lambda: restart.begin_again(
            http, [*http.pids(), *(housekeeping.pids() if housekeeping else [])], _as_arguments(options)
        )
        # Until the server has its own handlers, a signal ends this process; what it started follows.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if housekeeping is not None:
                housekeeping.start()
            where = f"[{host}]" if ":" in host else host
            self.say(f"Serving http://{where}:{port}/ (process {os.getpid()}); Ctrl-C ends it.")
            if before is not None:
                before.replace(http)
            http.run(partial(_load, before))
        finally:
            if before is not None:
                before.end()
            if housekeeping is not None:
                housekeeping.stop()
            serving.drain_what_is_left()


def _load(before: restart.Predecessor | None, target: str) -> server.Application:
    """As `serving.load`; while others still serve, a new process takes the time that it needs."""
    waits = before is not None and before.serves
    return serving.load(target, restart.READY_SECONDS if waits else serving.KEYS_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return server.listen(serving.bindable(host, port), port)
    except OSError as error:
        refuse(serving.why_not(host, port, error), REFUSED)


def _as_arguments(options: dict[str, Any]) -> list[str]:
    """The options as they were given; what was not given is the new program's to find."""
    given = ["--host", options["host"], "--port", str(options["port"]), "--role", options["role"]]
    given += ["--workers", str(options["workers"])] if options["workers"] else []
    return given + (["--no-worker"] if options["no_worker"] else [])


def _number(least: int, most: int) -> Any:  # an argparse type
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 8 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def refuse_unapplied_migrations() -> None:
    """Old tables under new code lose data quietly; better not to start."""
    executor = MigrationExecutor(connections["default"])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        refuse(f"The database lacks {len(plan)} migrations; run `manage.py migrate` first.", REFUSED)


def build_static_files() -> None:
    """Collect the static files if their manifest is missing or older than one of them."""
    if settings.DEBUG:
        return
    root = Path(settings.STATIC_ROOT)
    # In an image they are there, in a folder that the server's user may only read.
    if not os.access(root.parent, os.W_OK) and _static_files_are_built(root / "staticfiles.json"):
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        # One at a time: collecting deletes and writes files that another would be reading.
        with root.with_name(f"{root.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _static_files_are_built(root / "staticfiles.json"):
                call_command("collectstatic", interactive=False, verbosity=0)
    except (OSError, ValueError) as error:
        refuse(f"The static files cannot be built: {error}", REFUSED)


def _static_files_are_built(manifest: Path) -> bool:
    """Newer than every source, and every file that it names is there."""
    try:
        built = manifest.stat().st_mtime
        names = json.loads(manifest.read_bytes())["paths"].values()
    except (FileNotFoundError, ValueError, KeyError):
        return False
    return all((manifest.parent / name).exists() for name in names) and all(
        Path(storage.path(path)).stat().st_mtime < built
        for finder in get_finders()
        for path, storage in finder.list([])
    )
