"""The landing page, and the way home. Nothing here changes anything."""

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from portal.models import User
from portal.views.console import LAST_ORGANIZATION


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """What this portal is; the door to signing up, or to one's dashboard."""
    context = {
        "text": settings.PORTAL_TEXT,
        "example_url": settings.API_URL or f"{settings.PORTAL_URL}/v1/me",
        "is_own": bool(settings.API_URL),
    }
    return render(request, "portal/landing.html", context)


@require_safe
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """To the organization last seen, else to the first; staff without one to theirs, others to welcome."""
    assert isinstance(request.user, User)
    slugs = list(request.user.organizations.order_by("name", "id").values_list("slug", flat=True))
    if not slugs:
        return redirect("staff" if request.user.is_staff else "welcome")
    last = request.session.get(LAST_ORGANIZATION)
    return redirect("overview", last if last in slugs else slugs[0])
