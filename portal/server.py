"""The HTTP server, with the options that `serve` gives it; the benchmarks serve with these too.

Nothing here reads a setting or answers a request.
"""

from typing import Any

from granian import Granian
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.common import AbstractServer

THREADS = 32  # that run the application in one process; `portal.wsgi` says who may have how many
BACKLOG = 1024
# A request's head: enough for a megabyte in one header to be refused by the gateway itself, with its code.
HEAD_BYTES = 1_310_720
KILL_SECONDS = 5  # a page that still runs so long after the signal is cut off
# The server's own log, on stderr. Its access log stays off: URLs may hold what no log should.
LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} server: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
}


def make(target: str, *, address: str, port: int, workers: int = 1) -> AbstractServer[Any]:
    """A server for the WSGI callable `target` (`module:name`), not started yet."""
    return Granian(
        target,
        address=address,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        blocking_threads=THREADS,
        backlog=BACKLOG,
        http1_settings=HTTP1Settings(max_buffer_size=HEAD_BYTES),
        backpressure=BACKLOG,
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_SECONDS,
        websockets=False,
        log_level=LogLevels.error,
        log_dictconfig=LOG,
        log_access=False,
    )
