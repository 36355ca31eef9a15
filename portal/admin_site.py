"""Django's admin, signed in through the portal's own accounts.

It names the site and guards its doors; what is on the pages is in each package's `admin`.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

from allauth.account.decorators import secure_admin_login
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator

from keys import oversight


class AdminSite(admin.AdminSite):
    index_title = "Staff admin"
    site_url = "/staff/"

    @property
    def site_header(self) -> str:  # type: ignore[override]  # the portal's name is a setting
        return f"{settings.PORTAL_NAME} staff"

    @property
    def site_title(self) -> str:  # type: ignore[override]  # as above
        return f"{settings.PORTAL_NAME} staff"

    @method_decorator(secure_admin_login)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Through the portal's own sign-in, with its codes and its limits."""
        return super().login(request, extra_context)

    def admin_view[V: Callable[..., Any]](self, view: V, cacheable: bool = False) -> V:
        """No database takes a NUL in a text or a number of forty digits, and the admin's filters and
        selections hand on whatever they are sent."""

        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if "\x00" in request.path or any("\x00" in text for pair in _pairs(request) for text in pair):
                raise BadRequest("An address cannot have a NUL.")
            try:
                return view(request, *args, **kwargs)
            except OverflowError:
                raise BadRequest("A number is too large.") from None

        return super().admin_view(cast("V", guarded), cacheable)

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """With what the person did lately, from the audit."""
        acts = oversight.recent_acts(request.user.pk) if request.user.pk else []
        return super().index(request, {"recent_acts": acts, **(extra_context or {})})


def _pairs(request: HttpRequest) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, values in request.GET.lists() for value in values]
