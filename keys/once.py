"""Forms that act once: a reload or a double click of a form that made a key must not make a second.

A page with such a form carries a signed token. Acting claims the token by inserting one row, in the
act's own transaction, so that the database decides between two at once. This module alone knows how
a claim is stored (as a row of Django's session store, which also prunes it); it never stores a secret.
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase
from django.core import signing
from django.db import transaction
from django.http import HttpRequest

FIELD = "once"  # the hidden field's name
MAX_AGE = 86_400  # seconds; shorter than a claim's row lives (SESSION_COOKIE_AGE)


class Spent(Exception):
    """The form has acted already; `result` is what the first time noted, e.g. the new key's id."""

    def __init__(self, result: str) -> None:
        super().__init__("This form was sent already.")
        self.result = result


class Claim:
    """What the acting code notes for a second attempt to find."""

    result = ""


class Once:
    """One form's token: the posted one if it is good, else a new one to put into the page."""

    def __init__(self, request: HttpRequest, purpose: str) -> None:
        self._salt = f"keys.once:{purpose}:{request.user.pk}"
        posted = request.POST.get(FIELD, "") if request.method == "POST" else ""
        self.posted = self._is_good(posted)
        self.token = (
            posted if self.posted else signing.dumps(secrets.token_hex(16), salt=self._salt, compress=False)
        )

    def _is_good(self, token: str) -> bool:
        try:
            signing.loads(token, salt=self._salt, max_age=MAX_AGE)
        except (signing.BadSignature, ValueError):
            return False
        return True

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """A transaction in which the form acts. Raises Spent if it has; an exception frees the token."""
        key = "once-" + hashlib.sha256(self.token.encode()).hexdigest()[:32]
        with transaction.atomic():
            row = _store(key)
            try:
                row.save(must_create=True)
            except CreateError:
                raise Spent(str(_store(key).get("result", ""))) from None
            claim = Claim()
            yield claim
            row["result"] = claim.result
            row.save()


def _store(key: str) -> SessionBase:
    store: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore(session_key=key)
    return store
