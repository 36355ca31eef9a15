"""A mail server of a test's own, on a free port of this machine; it may be told to refuse."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class MailServer:
    """What it took, in order; `answers` are what it says to an address instead of 250, and `on_taken` is
    called before it says that it took a mail."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.answers: dict[str, str] = {}
        self.on_taken: Callable[[EmailMessage], object] = lambda message: None
        self.port = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def mailers(self) -> dict[str, Any]:
        """Django's setting."""
        backend = "django.core.mail.backends.smtp.EmailBackend"
        options = {"host": "127.0.0.1", "port": self.port, "timeout": 20}
        return {"default": {"BACKEND": backend, "OPTIONS": options}}

    def ids(self) -> list[str]:
        with self._lock:
            return [str(message["Message-ID"]) for message in self.taken]

    async def handle_RCPT(  # noqa: N802  aiosmtpd calls it so
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answer := self.answers.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  as above
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        with self._lock:
            self.taken.append(message)
        self.on_taken(message)
        return "250 OK"


class _Controller(Controller):
    """On whichever port is free."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]  # aiosmtpd has no type for it


@contextmanager
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    controller = _Controller(server, hostname="127.0.0.1", port=0)
    controller.start()
    try:
        server.port = controller.port
        yield server
    finally:
        controller.stop()
