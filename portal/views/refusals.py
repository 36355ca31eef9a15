"""An organization's refusals: the list, the search, and the same as a file.

A search is a POST, for it may hold a whole key; its answer is a redirect to an address that holds none.
"""

import csv

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from keys.access import MemberRequest, member
from keys.permissions import Act
from portal import refusals as found
from portal.refusals import SearchForm


@sensitive_post_parameters()
@member(Act.VIEW)
@require_http_methods(["GET", "HEAD", "POST"])
def refusals(request: MemberRequest) -> HttpResponse:
    """Which calls were refused, and why."""
    here = reverse("refusals", args=[request.organization.slug])
    search = SearchForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and search.is_valid():
        query, why_not = found.address_of(search.cleaned_data["q"], request.organization)
        if query:
            return redirect(f"{here}?{query}")
        search.add_error("q", why_not)
    if found.holds_secret(request.GET):
        messages.warning(request, "A key does not belong into an address. Search for it below.")
        return redirect(here)
    page = found.refusals(request.organization, request.GET, timezone.now())
    status = 400 if search.errors else 200
    return render(request, "portal/refusals.html", {"page": page, "search": search}, status=status)


@member(Act.VIEW)
@require_safe
def refusals_csv(request: MemberRequest) -> HttpResponse:
    """The list, all of its pages, as a file."""
    name = f"refusals-{request.organization.slug}.csv"
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
    csv.writer(response).writerows(found.table(request.organization, request.GET))
    return response
