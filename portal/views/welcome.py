"""The welcome of a new customer: an organization and its first key in one step.

The key's secret leaves in exactly one response, rendered by the POST that made it; a reload makes no
second one.
"""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods

from keys import examples
from keys.lifecycle import Conflict, Invalid, Issued
from keys.once import Once, Spent
from keys.recent import recent_sign_in_required
from portal import onboarding
from portal.models import User


@sensitive_variables()
def _show_secret(request: HttpRequest, issued: Issued) -> HttpResponse:
    scopes = sorted(issued.key.scopes.values_list("name", flat=True))
    context = {
        "key": issued.key,
        "organization": issued.key.organization,
        "plaintext": issued.plaintext,
        "example": examples.first_call(issued.plaintext, scopes),
    }
    return render(request, "portal/first_key.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@recent_sign_in_required
def welcome(request: HttpRequest) -> HttpResponse:
    """An organization and its first key in one step; the POST's own answer shows the secret."""
    assert isinstance(request.user, User)
    now = timezone.now()
    once = Once(request, "welcome")
    form = onboarding.WelcomeForm(now, request.POST if request.method == "POST" else None)
    if request.method == "POST" and onboarding.may_found() and form.is_valid():
        if not once.posted:
            form.add_error(None, "This page was open for too long. Check what it says and send it again.")
        else:
            try:
                with once.claim() as claim:
                    issued = onboarding.found(request.user, form, now)
                    claim.result = issued.key.public_id
            except Spent as spent:
                key = onboarding.first_key(request.user, spent.result)
                return render(request, "portal/already_welcome.html", {"key": key}, status=409)
            except (Invalid, Conflict) as refusal:
                form.refuse(refusal)
            else:
                return _show_secret(request, issued)
    if request.user.organizations.exists():
        return redirect("home")
    if not onboarding.may_found():
        return render(request, "portal/no_organization.html")
    return render(request, "portal/welcome.html", {"form": form, "once": once.token})
