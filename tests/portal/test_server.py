"""What `portal.server` answers without WSGI, in a real process."""

from pathlib import Path
from typing import Any

from portal import server
from tests.bench.environment import environment
from tests.bench.servers import Host


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [f"by WSGI, {len(environ)} values".encode()]


def answer(environ: dict[str, Any]) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    query, forwarded, length = environ["QUERY_STRING"], environ["HTTP_X_FORWARDED_FOR"], len(environ)
    return 403, (("X-Length", str(length)),), f"{query} {forwarded}".encode()


server.answer_directly(application, "/direct/", answer)


def test_what_is_asked_below_a_path_is_answered_without_wsgi(tmp_path: Path) -> None:
    with Host(environment(), "tests.portal.test_server:application", log=tmp_path / "log") as host:
        through_wsgi = host.get("/directly/").body.decode()
        directly = host.get("/direct/a%20b?c=%20d", X_Forwarded_For="192.0.2.1")
    assert through_wsgi.startswith("by WSGI")
    assert (directly.status, directly.body) == (403, b"c=%20d 192.0.2.1")
    # The server counts the body, and the process's environment is not among the values.
    assert int(directly.headers["Content-Length"]) == len(directly.body)
    assert int(directly.headers["X-Length"]) < int(through_wsgi.split()[2])
