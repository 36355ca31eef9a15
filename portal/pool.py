"""How a pooled PostgreSQL connection is tried before it is handed out, and a lost database found again.

The pool tries one idle connection after another and pauses longer each time, so that after a restart of the
database, with many idle ones, a page waited for seconds or failed. Here the first broken one has all idle
ones looked at, at once. And it tries to connect only for who comes, not for who waits, so that the keys were
read again up to ten seconds after the database was back. Used by the settings and by nothing else.
"""

import threading
from typing import Any

import psycopg
from django.db import connections
from psycopg_pool import ConnectionPool

_resizing = threading.Lock()


def check(connection: psycopg.Connection[Any]) -> None:
    """Raise if the connection is broken; then the others that are idle have been replaced too."""
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.Error:
        pool: ConnectionPool[Any] = connections["default"].pool  # type: ignore[attr-defined]  # PostgreSQL's
        pool.check()
        raise


def retry(pool: ConnectionPool[Any]) -> None:
    """Called when the pool has given up (after `reconnect_timeout`): try on while somebody waits."""
    if not pool.get_stats().get("requests_waiting"):
        return
    with _resizing:
        # A larger pool connects at once. To ask for a connection here would do it too, but who asked in vain
        # stays in the pool's queue until the database is back.
        size = pool.min_size
        pool.resize(size + 1, pool.max_size)
        pool.resize(size, pool.max_size)
