"""The forms of billing alerts: parse, call `usage.billing.alerts`, answer."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from keys.access import MemberRequest, member
from keys.lifecycle import Conflict, Invalid
from keys.permissions import Act
from portal import billing_pages
from portal.alerts import AlertForm
from usage.billing import alerts


@member(Act.EDIT_ALERTS)
@require_http_methods(["GET", "HEAD", "POST"])
def alert_new(request: MemberRequest) -> HttpResponse:
    """Set an alert."""
    now = timezone.now()
    currency = billing_pages.currency(request.organization, now)
    form = AlertForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            data = form.cleaned_data
            alert = alerts.add(request.actor, request.organization, currency=currency, now=now, **data)
        except (Invalid, Conflict) as refusal:
            form.add_error(refusal.field if refusal.field in form.fields else None, refusal.sentence)
        else:
            messages.success(request, f"Alert set at {alerts.words(alert)}.")
            return redirect("billing", request.organization.slug)
    return render(request, "portal/alert_new.html", {"form": form, "currency": currency})


@member(Act.EDIT_ALERTS)
@require_http_methods(["GET", "HEAD", "POST"])
def alert_remove(request: MemberRequest, alert_id: int) -> HttpResponse:
    """Ask, then take an alert away."""
    alert = get_object_or_404(request.organization.billing_alerts, pk=alert_id)
    if request.method == "POST":
        alerts.remove(request.actor, alert, now=timezone.now())
        messages.success(request, f"The alert at {alerts.words(alert)} is removed.")
        return redirect("billing", request.organization.slug)
    return render(request, "portal/alert_remove.html", {"words": alerts.words(alert)})
