"""The page where anybody can report a key or end one, by having it, and an organization's page about a leak.

The first never says whether a key exists.
"""

from allauth.core import ratelimit
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from keys.access import MemberRequest, member
from keys.permissions import Act
from portal import leak_pages, leaks
from portal.refusals import holds_secret


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def leak(request: HttpRequest) -> HttpResponse:
    """Take a key, respond as to any leak or revoke it, and say the same in any case."""
    if request.method == "POST" and not ratelimit.consume(request, action="leak"):
        return render(request, "429.html", status=429)
    if holds_secret(request.GET):
        messages.warning(request, "A key does not belong into an address. Paste it below.")
        return redirect("leak")
    form = leaks.LeakForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        leaks.told_by_form(form, timezone.now())
        return redirect("leak_told")
    return render(request, "portal/leak.html", {"form": form}, status=400 if form.errors else 200)


@require_safe
def leak_told(request: HttpRequest) -> HttpResponse:
    """Thanks, whatever was told."""
    return render(request, "portal/leak_told.html")


@member(Act.VIEW)
@require_safe
def key_leaks(request: MemberRequest, key_id: str) -> HttpResponse:
    """Where a key was found, and what it was used for since."""
    key = get_object_or_404(request.organization.keys.select_related("organization"), public_id=key_id)
    page = leak_pages.key_leaks(key, request.GET, timezone.now())
    return render(request, "portal/key_leaks.html", {"page": page, "key": key})
