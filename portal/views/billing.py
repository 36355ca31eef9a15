"""An organization's billing pages: one call each to `portal.billing_pages` and a template."""

from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from keys.access import MemberRequest, member
from keys.permissions import Act
from portal import alerts, billing_pages, key_costs
from usage.billing import Period


@member(Act.VIEW_BILLING)
@require_safe
def billing(request: MemberRequest) -> HttpResponse:
    """The plan, what this month costs so far, and the statements of earlier ones; or what each key costs."""
    if request.GET.get("by") == "key":
        costs = key_costs.costs(request.organization, request.GET.get("page"), timezone.now())
        return render(request, "portal/key_costs.html", {"costs": costs})
    page = billing_pages.page(request.organization, timezone.now())
    found = alerts.states(request.organization, page.bill, page.quotas, page.period)
    return render(request, "portal/billing.html", {"page": page, "alerts": found})


@member(Act.VIEW_BILLING)
@require_safe
def statement(request: MemberRequest, period: Period) -> HttpResponse:
    """A closed month, to be read and printed."""
    page = billing_pages.statement_page(request.organization, period)
    if page is None:
        raise Http404
    return render(request, "portal/statement.html", {"page": page})


@member(Act.VIEW_BILLING)
@require_safe
def statement_csv(request: MemberRequest, period: Period) -> HttpResponse:
    """Its lines as a file: the organization's own of the billing export, byte for byte."""
    own = billing_pages.own_statement(request.organization, period)
    if own is None:
        raise Http404
    name = _attachment(request, period, "csv")
    return HttpResponse(
        own.csv, content_type="text/csv; charset=utf-8", headers={"Content-Disposition": name}
    )


@member(Act.VIEW_BILLING)
@require_safe
def statement_manifest(request: MemberRequest, period: Period) -> HttpResponse:
    """What its lines add up to, with the hashes."""
    facts = billing_pages.manifest(request.organization, period)
    if facts is None:
        raise Http404
    name = _attachment(request, period, "csv.manifest.json")
    return JsonResponse(facts, headers={"Content-Disposition": name}, json_dumps_params={"indent": 2})


def _attachment(request: MemberRequest, period: Period, ending: str) -> str:
    return f'attachment; filename="{request.organization.slug}-{period}.{ending}"'
