"""An organization's billing page: one call to `portal.billing_pages` and a template."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from keys.access import MemberRequest, member
from keys.permissions import Act
from portal import billing_pages


@member(Act.VIEW_BILLING)
@require_safe
def billing(request: MemberRequest) -> HttpResponse:
    """The plan, and what this month costs so far."""
    page = billing_pages.page(request.organization, timezone.now())
    return render(request, "portal/billing.html", {"page": page})
