"""The staff's door to a customer's pages: a visit is begun with a reason, and left.

What may be seen during a visit, and that nothing can be changed, is `keys.access`'s to say.
"""

from contextlib import suppress

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from keys import access, lifecycle, oversight
from keys.lifecycle import Conflict, Refused
from portal.models import User
from portal.staff import staff, staff_page

SHOWN = 10  # visits that were


class VisitForm(forms.Form):
    """Why somebody looks."""

    reason = forms.CharField(
        max_length=200,
        label="Reason",
        help_text="The customer reads it among its activity. At most 200 characters.",
        widget=forms.TextInput({"autocomplete": "off", "placeholder": "Ticket 4711: charts are empty"}),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@staff
def visit(request: HttpRequest, organization: str) -> HttpResponse:
    """Ask for a reason; then see the customer's pages for half an hour."""
    assert isinstance(request.user, User)  # as `staff` has seen to
    if not access.may_visit(request.user):
        raise PermissionDenied
    customer = oversight.organization(organization)
    if customer is None:
        raise Http404
    posted = request.method == "POST"
    form = VisitForm(request.POST if posted else None)
    if posted and form.is_valid():
        who, reason = lifecycle.staff_actor(request.user), form.cleaned_data["reason"]
        try:
            begun = lifecycle.begin_visit(who, customer, reason=reason, now=timezone.now())
        except Refused as refused:
            form.add_error("reason", refused.sentence)
        else:
            request.session[access.VISIT] = begun.pk
            return redirect("overview", organization=organization)
    context = {
        "form": form,
        "customer": customer,
        "minutes": lifecycle.VISIT_LASTS.seconds // 60,
        "visits": oversight.visits(customer)[:SHOWN],
    }
    return staff_page(request, "staff/visit.html", context, status=400 if posted else 200)


@require_POST
@staff
def leave(request: HttpRequest) -> HttpResponse:
    """End the visit of this session, if there is one."""
    assert isinstance(request.user, User)  # as `staff` has seen to
    found = access.visit_of(request)
    request.session.pop(access.VISIT, None)
    if found is None:
        return redirect("staff")
    with suppress(Conflict):  # it has ended by itself: the person is where they wanted to be
        lifecycle.end_visit(lifecycle.staff_actor(request.user), found, now=timezone.now())
    return redirect("admin:keys_organization_change", found.organization_id)
