"""The HTTP server, with the options that `serve` gives it; the benchmarks serve with these too.

All its processes take connections from one socket, so that none is lost when one of them ends, however it
ends: what waits there is the next one's. Nothing here reads a setting or answers a request.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

from granian._granian import SocketHolder
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import mp

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

type Application = Callable[..., Any]  # a WSGI callable
type Loader = Callable[[str], Application]  # `module:name` → the WSGI callable of a new process
# From WSGI's environ to status, headers and body; it never raises.
type Answer = Callable[[dict[str, Any]], tuple[int, tuple[tuple[str, str], ...], bytes]]

_direct: dict[Application, tuple[str, Answer]] = {}


def answer_directly(application: Application, beginning: str, answer: Answer) -> None:
    """Have what is asked of `application` below the path `beginning` answered by `answer` instead, without
    WSGI's detour: no environment copied for each request, no callback, no chunks to be joined."""
    _direct[application] = beginning, answer


# What granian calls for each request is made by a function of its own from the application; ours makes it.
_by_wsgi: Application = vars(mp)["_wsgi_call_wrap"]


def _wrap(application: Application, options: dict[str, Any], access_log: str | None) -> Application:
    through_wsgi: Application = _by_wsgi(application, options, access_log)
    if application not in _direct:
        return through_wsgi
    beginning, answer = _direct[application]

    def run(protocol: Any, scope: dict[str, Any]) -> int:  # granian's own; the status, for its log
        if not scope["PATH_INFO"].startswith(beginning):
            status: int = through_wsgi(protocol, scope)
            return status
        status, headers, body = answer(scope)
        protocol.response_bytes(status, headers, body)
        return status

    return run


vars(mp)["_wsgi_call_wrap"] = _wrap


class Server(mp.MPServer):
    """A server on a socket that is bound already.

    `on_hangup` is called for SIGHUP, in the main thread; `started` after the processes were started.
    """

    def __init__(self, *arguments: Any, listener: socket.socket, **options: Any) -> None:  # granian's own
        super().__init__(*arguments, **options)
        self.listener = listener
        self.on_hangup: Callable[[], object] = lambda: None
        self.started: Callable[[], object] = lambda: None
        self._ready, self._tell = os.pipe()  # a byte for each process that has loaded the application

    def pids(self) -> list[int]:
        """Of the processes that serve."""
        return [worker.inner.pid for worker in self.wrks]

    def run(self, loader: Loader) -> None:
        """Serve until SIGINT or SIGTERM; `loader` is called in each new process."""

        def load(target: str) -> Callable[..., Any]:
            application = loader(target)
            os.write(self._tell, b".")
            return application

        # A new process begins where this one stands, with the listener and the loader. Since Python 3.14 that
        # must be said.
        multiprocessing.set_start_method("fork", force=True)
        self.serve(target_loader=load)

    def wait_for_one(self) -> None:
        """Return once one more process is ready to serve."""
        os.read(self._ready, 1)

    def startup(self, *arguments: Any) -> None:  # as above
        super().startup(*arguments)  # type: ignore[no-untyped-call]  # granian has few types
        self.started()

    # On Linux granian gives each process a socket of its own on the same port (SO_REUSEPORT), whose waiting
    # connections the kernel resets when the process ends. One for all is what it does elsewhere.
    def _init_shared_socket(self) -> None:
        fd = self.listener.fileno()
        holder = SocketHolder(fd, False, BACKLOG)  # type: ignore[call-arg]  # its stub has no constructor
        vars(self).update(_ssp=None, _sso=None, _sfd=fd, _shd=holder)

    def _reload(self, spawn_target: Any, target_loader: Any) -> None:  # as above
        self.reload_signal = False
        self.main_loop_interrupt.clear()
        self.on_hangup()


def listen(address: str, port: int) -> socket.socket:
    """A socket for `make`. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=BACKLOG)


def make(target: str, *, listener: socket.socket, workers: int = 1) -> Server:
    """A server for the WSGI callable `target` (`module:name`), not started yet."""
    address, port, *_ = listener.getsockname()
    return Server(
        target,
        listener=listener,
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
