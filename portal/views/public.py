"""The landing page, the docs, and the way home.

Everyone may read the first two. Nothing here changes anything.
"""

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from keys import examples
from portal import reference
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
def docs(request: HttpRequest) -> HttpResponse:
    """How to send a key, and what the answers mean."""
    context = {
        "codes": reference.codes(),
        "scopes": reference.scopes(),
        "example": examples.first_call(),
        "prefix": settings.KEY_PREFIX,
    }
    return render(request, "portal/docs.html", context)


@require_safe
def docs_errors(request: HttpRequest) -> HttpResponse:
    """Every refusal, with what to do; a problem document's `type` points to `#CODE` here."""
    return render(request, "portal/docs_errors.html", {"codes": reference.codes()})


@require_safe
def docs_gateway(request: HttpRequest) -> HttpResponse:
    """For those who run the API: how each proxy asks before every call."""
    context = {"recipes": reference.recipes(), "rule": reference.RULE, "identity": reference.IDENTITY}
    return render(request, "portal/docs_gateway.html", context)


@require_safe
def docs_keys(request: HttpRequest) -> HttpResponse:
    """For programs that make, rotate and revoke their organization's keys."""
    context = {"lines": reference.key_lines(), "fields": reference.KEY_FIELDS}
    return render(request, "portal/docs_keys.html", context)


@require_safe
def docs_meters(request: HttpRequest) -> HttpResponse:
    """What is counted, in which units, and how resources are kept apart."""
    context = {"meters": reference.meters(), "kept": settings.USAGE_RESOURCES}
    return render(request, "portal/docs_meters.html", context)


def docs_usage(request: HttpRequest) -> HttpResponse:
    """For those who run the API: usage from elsewhere, held calls, and for everybody: usage read back."""
    context = {
        "lines": reference.usage_lines(),
        "event": reference.EVENT,
        "rejections": reference.rejections(),
    }
    return render(request, "portal/docs_usage.html", context)


@require_safe
def docs_billing(request: HttpRequest) -> HttpResponse:
    """How a statement is made, line by line, and how to check one."""
    url = f"{settings.PORTAL_URL}{reverse('docs_check_statement')}"
    command = f"curl -O {url}\npython3 check_statement.py 2026-05.csv 2026-06.csv"
    return render(request, "portal/docs_billing.html", {"columns": reference.STATEMENT, "command": command})


@require_safe
def docs_check_statement(request: HttpRequest) -> HttpResponse:
    """The script that checks a statement, to be kept."""
    answer = HttpResponse(reference.check_statement(), content_type="text/x-python; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="check_statement.py"'
    return answer


@require_safe
def docs_leaks(request: HttpRequest) -> HttpResponse:
    """What happens when a key gets out, and how to find keys before others do."""
    context = {
        "patterns": reference.patterns(),
        "live": settings.LEAK_RESPONSE_LIVE,
        "test": settings.LEAK_RESPONSE_TEST,
    }
    return render(request, "portal/docs_leaks.html", context)


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
