"""Django's admin, signed in through the portal's own accounts.

It names the site and guards its doors; what is on the pages is in each package's `admin`.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

from allauth.account.decorators import secure_admin_login
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers

from keys import oversight
from portal.admin_overview import overview
from portal.middleware import bad_request


class AdminSite(admin.AdminSite):
    index_title = "Staff admin"
    site_url = "/staff/"

    @property
    def site_header(self) -> str:  # type: ignore[override]  # the portal's name is a setting
        return f"{settings.PORTAL_NAME} staff"

    @property
    def site_title(self) -> str:  # type: ignore[override]  # as above
        return f"{settings.PORTAL_NAME} staff"

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Through the portal's own sign-in, with its codes and its limits."""
        view = cast("Callable[..., HttpResponse]", secure_admin_login(super().login))
        try:
            return view(request, extra_context)
        except PermissionDenied:
            return _not_allowed(request)

    def admin_view[V: Callable[..., Any]](self, view: V, cacheable: bool = False) -> V:
        """No database takes a NUL in a text or a number of forty digits, and the admin's filters and
        selections hand on whatever they are sent."""

        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if "\x00" in request.path or any("\x00" in text for pair in _pairs(request) for text in pair):
                return bad_request(request)
            try:
                return view(request, *args, **kwargs)
            except (BadRequest, DisallowedModelAdminLookup, OverflowError):
                return bad_request(request)
            except PermissionDenied:
                return _not_allowed(request)

        return super().admin_view(cast("V", guarded), cacheable)

    def i18n_javascript(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django lets anybody keep it; what is below this address nobody keeps."""
        response = super().i18n_javascript(request, extra_context)
        add_never_cache_headers(response)
        return response

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """With how it stands today, and what the person did lately, from the audit."""
        acts = oversight.recent_acts(request.user.pk) if request.user.pk else []
        context = {"overview": overview(timezone.now()), "recent_acts": acts}
        return super().index(request, context | (extra_context or {}))


def _not_allowed(request: HttpRequest) -> HttpResponse:
    """A 403 that speaks of staff, not of an organization's roles."""
    return render(request, "admin/not_allowed.html", status=403)


def _pairs(request: HttpRequest) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, values in request.GET.lists() for value in values]
