"""The terms, for everybody to read, and the question to whoever is signed in."""

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from portal import terms as known
from portal.models import User


@require_safe
def terms(request: HttpRequest) -> HttpResponse:
    """What they say, and whether the reader has accepted them."""
    accepted = known.accepted_by(request.user) if isinstance(request.user, User) else None
    return render(request, "portal/terms.html", _context() | {"accepted": accepted})


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def terms_accept(request: HttpRequest) -> HttpResponse:
    """Ask, and go on to where the reader wanted to go."""
    assert isinstance(request.user, User)
    context = _context() | {"next": known.way_on(request)}
    if known.accepted_by(request.user) is not None:
        return redirect(context["next"])
    if request.method == "POST" and request.POST.get("version") == known.version():
        known.accept(request.user, known.version(), timezone.now())
        return redirect(context["next"])
    return render(request, "portal/terms_accept.html", context)


def _context() -> dict[str, str]:
    if not known.version():
        raise Http404
    return {"version": known.version(), "url": known.url(), "text": known.text()}
