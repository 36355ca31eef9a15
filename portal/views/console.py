"""An organization's pages that show usage beside keys: overview, key page, revoke, usage.

Each is one call to `portal.pages` and a template. Rows are reached through `request.organization` only.
"""

import csv
import datetime as dt

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from keys import examples
from keys.access import MemberRequest, member
from keys.forms import RevokeKeyForm
from keys.lifecycle import Conflict, Invalid
from keys.permissions import Act, allows
from portal import attention, first_call, key_pages, revocations, usage_pages
from portal.overview import at_a_glance
from usage import reports

LAST_ORGANIZATION = "organization"  # session key: the slug that `home` leads to


@member(Act.VIEW)
@require_safe
def overview(request: MemberRequest) -> HttpResponse:
    """The organization at a glance, and what needs attention."""
    if request.session.get(LAST_ORGANIZATION) != request.organization.slug:
        request.session[LAST_ORGANIZATION] = request.organization.slug
    now = timezone.now()
    page = at_a_glance(
        request.organization,
        now,
        with_cost=allows(request.membership.role, Act.VIEW_BILLING),
    )
    context = {"page": page} | (_first_call(request, now) if page.quiet else {})
    return render(request, "portal/overview.html", context)


def _first_call(request: MemberRequest, now: dt.datetime) -> dict[str, object]:
    """What to call with, and the panel that waits for it; without a secret that was never used, no panel."""
    secret = first_call.awaited(request.organization, now)
    if secret is None:
        return {"example": examples.first_call()}
    return {
        "secret": secret,
        "key": secret.key,
        "call": first_call.unused(secret.key, secret, now),
        "example": examples.first_call(scopes=[scope.name for scope in secret.key.scopes.all()]),
    }


@member(Act.VIEW)
@require_safe
def key(request: MemberRequest, key_id: str) -> HttpResponse:
    """Everything about one key."""
    now = timezone.now()
    found = key_pages.find(request.organization, key_id)
    page = key_pages.key_page(
        request.organization,
        found,
        request.GET.get("page"),
        now,
        with_history=allows(request.membership.role, Act.VIEW_ACTIVITY),
    )
    new = page.current if not page.last_used and page.badge.state in ("active", "expiring") else None
    context = {
        "page": page,
        "key": found,
        "call": first_call.unused(found, new, now) if new else None,
        "example": examples.first_call(scopes=[scope.name for scope in found.scopes.all()]),
        "source_days": settings.SOURCES_DAYS,
        "signals": attention.of_key(found, page.changed_at, now),
    }
    return render(request, "portal/key.html", context)


@member(Act.REVOKE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_revoke(request: MemberRequest, key_id: str) -> HttpResponse:
    """Say who uses the key, ask, then end it for good."""
    now = timezone.now()
    found = get_object_or_404(request.organization.keys, public_id=key_id)
    if found.revoked_at is not None:
        messages.info(request, "This key is revoked already.")
        return redirect("key", request.organization.slug, found.public_id)
    form = RevokeKeyForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            revocations.revoke(request.actor, [found], reason=form.cleaned_data["reason"], now=now)
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, f"Revoked “{found.name}”. Gateways refuse it from now on.")
            return redirect("key", request.organization.slug, found.public_id)
    calls, last_used = key_pages.recent_use(request.organization, found, now)
    context = {
        "key": found,
        "form": form,
        "calls": calls,
        "last_used": last_used,
        "complete_through": reports.complete_through(),
    }
    return render(request, "portal/key_revoke.html", context)


@member(Act.VIEW)
@require_safe
def usage(request: MemberRequest) -> HttpResponse:
    """Calls of a range: a stacked chart, and its figures in a table."""
    found = usage_pages.explore(request.organization, request.GET, timezone.now())
    return render(request, "portal/usage.html", {"usage": found, "page": found.page})


@member(Act.VIEW)
@require_safe
def usage_csv(request: MemberRequest) -> HttpResponse:
    """The table of the usage page, all of its pages, as a file. Until when it is complete is in its name and
    in a header of the answer, so that the table stays one that programs read."""
    found = usage_pages.explore(request.organization, request.GET, timezone.now(), whole=True)
    name = usage_pages.file_name(request.organization, found)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    if found.complete_through is not None:
        until = found.complete_through.astimezone(dt.UTC)
        headers["X-Complete-Through"] = f"{until:%Y-%m-%dT%H:%M:%SZ}"
    response = HttpResponse(content_type="text/csv; charset=utf-8", headers=headers)
    csv.writer(response).writerows(usage_pages.table(found))
    return response
