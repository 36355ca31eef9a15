"""How a pooled PostgreSQL connection is tried before it is handed out.

The pool tries one idle connection after another and pauses longer each time, so that after a restart of the
database, with many idle ones, a page waited for seconds or failed. Here the first broken one has all idle
ones looked at, at once. Used by the settings and by nothing else.
"""

from typing import Any

import psycopg
from django.db import connections
from psycopg_pool import ConnectionPool


def check(connection: psycopg.Connection[Any]) -> None:
    """Raise if the connection is broken; then the others that are idle have been replaced too."""
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.Error:
        pool: ConnectionPool[Any] = connections["default"].pool  # type: ignore[attr-defined]  # PostgreSQL's
        pool.check()
        raise
