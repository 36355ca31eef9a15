"""The portal set up outside of pytest, for the long forms: a database of their own, the tests' settings."""

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def portal(database_url: str = "") -> Iterator[tuple[dict[str, str], Path]]:
    """Set Django up on this database, or on a new SQLite file; migrate; end with no connection left.

    Yields the environment for servers and a folder that goes at the end. Once in a process: what needs
    Django's models must be imported after it.
    """
    # Who ends a long run early ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(prefix="latchkey-faults-") as name:
        folder = Path(name)
        url = database_url or f"sqlite:///{folder / 'alone.sqlite3'}"
        os.environ["DATABASE_URL"] = url
        os.environ["LATCHKEY_TESTS_DIR"] = name
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        call_command("migrate", verbosity=0)
        from tests import builders

        try:
            yield builders.environment(DATABASE_URL=url), folder
        finally:
            for connection in connections.all(initialized_only=True):
                connection.close()
                close_pool = getattr(connection, "close_pool", None)  # PostgreSQL's backend
                if close_pool is not None:
                    close_pool()
