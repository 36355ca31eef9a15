"""A secret appears once: in the answer that made it, and nowhere else after."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core import mail
from django.db import connection
from django.test import Client
from django.urls import reverse

from keys import tokens
from keys.models import Key
from portal.logs import Formatter
from tests import builders
from tests.faults.server import Response, Server
from usage.drain import drain_once
from usage.models import Rollup

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = re.compile(r"lk_(?:live|test)_[0-9A-Za-z]{38}")


def dump() -> bytes:
    """Every cell of every table, and on SQLite the files themselves with what was deleted."""
    parts = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            parts.append(repr([[_plain(cell) for cell in row] for row in cursor.fetchall()]).encode())
    if connection.vendor == "sqlite":
        name = Path(str(connection.settings_dict["NAME"]))
        parts += [path.read_bytes() for path in name.parent.glob(f"{name.name}*")]
    return b"\n".join(parts)


def _plain(cell: object) -> object:
    return bytes(cell) if isinstance(cell, memoryview) else cell


def found_in(text: bytes, plaintext: str) -> bool:
    """The whole, or so much of its random part that it could be completed."""
    random = plaintext.rpartition("_")[2]
    return any(part.encode() in text for part in (plaintext, random[:24], random[8:]))


@pytest.fixture
def everything_logged(tmp_path: Path) -> Iterator[Path]:
    """This process's logs at their most talkative, SQL included."""
    handler = logging.FileHandler(tmp_path / "own.log")
    handler.setFormatter(Formatter())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield tmp_path / "own.log"
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


def test_a_secret_is_found_nowhere_after_the_answer_that_shows_it(
    client: Client, journal_dir: Path, tmp_path: Path, everything_logged: Path
) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", alice)
    builders.scope("orders:read")
    builders.signed_in(client, alice)
    new = reverse("key_new", args=["acme"])
    form = {"once": client.get(new).context["once"], "name": "Backend", "environment": "live"}
    form |= {"scopes": "orders:read", "expiry": "90"}
    created = client.post(new, form)
    (plaintext,) = set(SECRET.findall(created.content.decode()))
    assert "no-store" in created.headers["Cache-Control"]
    key = Key.objects.get(organization=acme)
    rotate = reverse("key_rotate", args=["acme", key.public_id])
    page = client.get(rotate)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.content.decode()))
    rotated = client.post(rotate, hidden | {"overlap": "86400", "expiry": "keep"})
    (successor,) = set(SECRET.findall(rotated.content.decode()))
    printed = subprocess.run(
        [sys.executable, "manage.py", "create_key", "--organization", "acme", "--name", "Command"],
        cwd=settings.BASE_DIR, env=builders.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    provider = builders.key(acme, name="Our API", scopes=("portal:verify",))
    mine = [plaintext, successor, printed.stdout.strip(), provider.plaintext]
    assert all(tokens.parse(each) for each in mine)

    pages = []
    with Server(builders.environment(), "--no-worker", log=tmp_path / "serve.log") as server:
        for each in mine:
            for path in ("/gateway/authorize", "/gateway/authorize?scope=a:b", "/gateway/authorize?junk=1"):
                answer = server.get(path, authorization=f"Bearer {each}", user_agent="curl")
                pages.append(answer.body + repr(answer.headers.items()).encode())
            server.get(f"/gateway/authorize?scope={each}", authorization=f"Bearer {each}")
            server.get(f"/o/acme/keys/?q={each}")  # someone pastes it where it does not belong
            server.get(f"/{each}")
            pages += [_sent(server, verifier, each) for verifier in (mine[0], provider.plaintext)]
            pages.append(_sent(server, each, "junk"))
    pages += [client.get(reverse(name, args=["acme"])).content for name in ("overview", "keys", "activity")]
    pages.append(client.get(reverse("key", args=["acme", key.public_id])).content)
    journals = b"".join(path.read_bytes() for path in journal_dir.iterdir())
    drain_once(builders.NOW)
    assert Rollup.objects.exists()

    places = {
        "the database": dump(),
        "a journal": journals,
        "the server's log": (tmp_path / "serve.log").read_bytes(),
        "this process's log": everything_logged.read_bytes(),
        "a mail": repr([(m.subject, m.body) for m in mail.outbox]).encode(),
        "a command's messages": printed.stderr.encode(),
        "a page": b"".join(pages),
        "a cookie": repr(client.cookies).encode(),
    }
    assert len(places["the database"]) > 10_000
    assert {where for where, text in places.items() for each in mine if found_in(text, each)} == set()


def _sent(server: Server, verifier: str, asked: str) -> bytes:
    """Every answer of the machine API about this key: wherever somebody may put it, and what comes back."""
    bodies: list[object] = [
        {"key": asked, "scopes": ["a:b"], "ip": "192.0.2.1", "environment": "test"},
        {"key": [asked]},
        {"key": "a", asked: asked},
        *(
            {"key": asked, field: asked}
            for field in ("ip", "environment", "cost", "meter", "resource", "scopes", "x")
        ),
        {"key": asked, "scopes": [asked]},
    ]
    sent = [json.dumps(body) for body in bodies] + [f'{{"key": "{asked}', f'{{"{asked}": 1, "{asked}": 2}}']

    def call(method: str, path: str, body: str | None = None) -> Response:
        return server.request(
            method, path, body, Authorization=f"Bearer {verifier}", Content_Type="application/json"
        )

    answers = [call("POST", "/v1/keys/verify", body) for body in sent]
    answers += [call("POST", f"/v1/{asked}", sent[0])]
    answers += [call("GET", path) for path in ("/v1/me", f"/v1/me?key={asked}", f"/v1/{asked}")]
    assert all(answer.status < 500 for answer in answers)
    return b"".join(answer.body + repr(answer.headers.items()).encode() for answer in answers)


def test_a_log_line_never_has_a_key_however_it_got_there(tmp_path: Path) -> None:
    plaintext = tokens.mint("lk", "live").plaintext
    handler = logging.FileHandler(tmp_path / "log")
    handler.setFormatter(Formatter())
    try:
        raise ValueError(f"bad value {plaintext[:-3]}")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "Not Found: %s", (f"/{plaintext}",), None)
        record.exc_info = (type(error), error, error.__traceback__)
        handler.emit(record)
    handler.close()
    text = (tmp_path / "log").read_text()
    assert "Not Found: /lk_live_[redacted]" in text
    assert "ValueError: bad value lk_live_[redacted]" in text
    assert not found_in(text.encode(), plaintext)
