"""System checks of the terms, as `portal.checks` has them of everything else."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from portal import terms
from portal.checks import is_loopback

_VERSION = re.compile(rf"[0-9A-Za-z][0-9A-Za-z._-]{{0,{terms.VERSION_LENGTH - 1}}}", re.ASCII)


@register("portal")
def terms_are_there(**kwargs: Any) -> Iterator[CheckMessage]:
    hint = "Give an https URL, or the absolute path of a UTF-8 text that the server's user may read."
    if not settings.TERMS:
        return
    try:
        url = urlsplit(settings.TERMS)
        host = url.hostname or ""
    except ValueError:
        yield Error(f"TERMS={settings.TERMS} is not a URL.", hint=hint, id="portal.E034")
        return
    if url.scheme:
        if not host or not (url.scheme == "https" or (url.scheme == "http" and is_loopback(host))):
            yield Error(f"TERMS={settings.TERMS} is not an https URL.", hint=hint, id="portal.E034")
        return
    try:
        terms.read(settings.TERMS)
    except terms.BadTerms as bad:
        yield Error(f"TERMS={settings.TERMS} {bad}.", hint=hint, id="portal.E034")


@register("portal")
def terms_have_a_version(**kwargs: Any) -> Iterator[CheckMessage]:
    hint = "E.g. TERMS_VERSION=2026-06-01; whenever it changes, everybody is asked again."
    if settings.TERMS and not _VERSION.fullmatch(settings.TERMS_VERSION):
        yield Error(
            "TERMS needs a TERMS_VERSION of letters, digits, '.', '_' or '-'.", hint=hint, id="portal.E035"
        )
    elif settings.TERMS_VERSION and not settings.TERMS:
        yield Error(
            "TERMS_VERSION is set, but not what has this version.", hint="Set TERMS too.", id="portal.E035"
        )
