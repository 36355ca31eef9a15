"""The pages of failures for which there may be no request to trust: they have the provider's name and looks,
from settings alone, and ask no database."""

import sys
from typing import Final

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from portal import brand

RETRY_SECONDS: Final = "5"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What Django refuses before any view, as a wrong host."""
    return _page("400.html", 400)


def server_error(request: HttpRequest) -> HttpResponse:
    """A failure of ours; while the database is away, or too busy, it is one that passes."""
    if isinstance(sys.exception(), (OperationalError, InterfaceError)):
        response = _page("503.html", 503)
        response["Retry-After"] = RETRY_SECONDS
        return response
    return _page("500.html", 500)


def _page(template: str, status: int) -> HttpResponse:
    try:
        text = render_to_string(template, brand.looks())
    except Exception:  # what failed may be what the looks need
        text = render_to_string(template)
    return HttpResponse(text, status=status)
