"""The panel that waits for a key's first call: alone on a page, or as the fragment that other pages poll.

Rows are reached through `request.organization` only.
"""

import functools
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from keys.access import MemberRequest, View, member
from keys.permissions import Act
from portal import first_call


def _tells_who_is_signed_out(view: View) -> View:
    """A poll without a session gets a line that says so; else the sign-in page would come into the panel."""

    @functools.wraps(view)
    def polled(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:  # the URL's arguments
        if "HX-Request" in request.headers and not request.user.is_authenticated:
            return render(request, "portal/first_call.html#signed_out")
        return view(request, **kwargs)

    return polled


@_tells_who_is_signed_out
@member(Act.VIEW)
@require_safe
def key_first_call(request: MemberRequest, key_id: str) -> HttpResponse:
    """Has it arrived? A page that polls gets 204 while nothing has changed since what it has `seen`."""
    key = get_object_or_404(request.organization.keys.select_related("organization"), public_id=key_id)
    now = timezone.now()
    call = first_call.look(key, now)
    is_over = first_call.is_over(request.GET.get("since", ""), now)
    context = {"key": key, "call": call, "is_over": is_over}
    if "HX-Request" not in request.headers:
        return render(request, "portal/first_call_page.html", context)
    is_news = is_over or call.use is not None or call.request != request.GET.get("seen", "")
    return render(request, "portal/first_call.html", context) if is_news else HttpResponse(status=204)
