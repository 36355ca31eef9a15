"""The terms that people accept: what they are, who has accepted which version, and asking first.

Whoever signs up accepts them on the form, which counts once the address is confirmed. Whoever has not
accepted the current version is asked before the next page. Keys, the gateway, the machine API and
staff's pages and visits are never held up.
"""

import datetime as dt
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from keys import access, audit
from keys.audit import Actor
from keys.models import Membership
from portal.models import Acceptance, User

MAX_BYTES: Final = 500_000
VERSION_LENGTH: Final = 40
_HELD: Final = ("/o/", "/home/", "/welcome/", "/invitations/")  # pages that wait for the answer
_ACCEPTED: Final = "terms_accepted"  # in a session: the version that this person is known to have accepted
_PROMISED: Final = "terms_promised"  # in a session: who accepted what on the form of sign-up


class BadTerms(ValueError):
    """There are no such terms to show; the text says why."""


def version() -> str:
    """The version that is asked for; empty: there are no terms."""
    return str(settings.TERMS_VERSION) if settings.TERMS else ""


def url() -> str:
    """Where the terms are, if they are elsewhere."""
    return str(settings.TERMS) if urlsplit(settings.TERMS).scheme else ""


def text() -> str:
    """The terms' text, if the portal shows it. A file that went missing since the start has none."""
    try:
        return "" if url() else read(settings.TERMS)
    except BadTerms:
        return ""


@lru_cache(maxsize=2)
def read(path: str) -> str:
    """A file of terms. Raises BadTerms."""
    file = Path(path)
    try:
        body = file.read_bytes() if file.is_absolute() else b""
    except (OSError, ValueError):
        raise BadTerms("cannot be read") from None
    if len(body) > MAX_BYTES:
        raise BadTerms(f"has {len(body):,} bytes, more than {MAX_BYTES:,}")
    try:
        found = body.decode().strip()
    except UnicodeDecodeError:
        raise BadTerms("is not a text in UTF-8") from None
    if not found or "\0" in found:
        raise BadTerms("is not the absolute path of a text")
    return found


def accept(person: AbstractBaseUser, accepted: str, now: dt.datetime) -> None:
    """Note that this person accepted this version. A second time changes nothing."""
    with transaction.atomic():
        _, made = Acceptance.objects.get_or_create(user_id=person.pk, version=accepted, defaults={"at": now})
        if made:
            actor = Actor("user", person.get_username(), person.pk)
            audit.append("terms.accepted", actor=actor, at=now, data={"version": accepted})


def accepted_and_members() -> tuple[int, int]:
    """How many members have accepted the current version, and how many members there are."""
    members = Membership.objects.order_by().values("user").distinct()
    accepted = Acceptance.objects.filter(version=version(), user__in=members).count() if version() else 0
    return accepted, members.count()


def accepted_by(person: User) -> Acceptance | None:
    """When this person accepted the current version, if they did."""
    return person.acceptances.filter(version=version()).first() if version() else None


# --- sign-up --------------------------------------------------------------------------------------


def promise(request: HttpRequest, email: str) -> None:
    """Keep in mind that whoever signs up with this address accepted the terms."""
    if version():
        request.session[_PROMISED] = {"email": email.lower(), "version": version()}


def keep_promise(request: HttpRequest, person: AbstractBaseUser, now: dt.datetime) -> None:
    """Whoever signed up has shown that the address is theirs, and is signed in."""
    promised = request.session.pop(_PROMISED, None)
    if promised and promised["email"] == person.get_username().lower() and version():
        accept(person, promised["version"], now)


# --- asking first ---------------------------------------------------------------------------------


def ask_first(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: a page that waits for the answer becomes the question."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if not version() or not request.path.startswith(_HELD) or not isinstance(request.user, User):
            return get_response(request)
        if request.session.get(_ACCEPTED) == version() or access.visit_of(request) is not None:
            return get_response(request)
        if accepted_by(request.user) is not None:
            request.session[_ACCEPTED] = version()  # asks the database once a session
            return get_response(request)
        there = request.get_full_path() if request.method in ("GET", "HEAD") else reverse("home")
        question = f"{reverse('terms_accept')}?{urlencode({'next': there})}"
        if "HX-Request" in request.headers:
            return HttpResponse(headers={"HX-Redirect": question})
        return redirect(question)

    return middleware


def way_on(request: HttpRequest) -> str:
    """Where whoever was asked wanted to go."""
    there = request.POST.get("next") or request.GET.get("next") or ""
    safe = url_has_allowed_host_and_scheme(there, allowed_hosts=None)
    return there if safe and there.startswith("/") else reverse("home")
