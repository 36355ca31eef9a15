"""The staff's trials: everybody's that run, and limits of a whole organization tried, applied or discarded.

The acts are `usage.trials`', and the customer sees them: a trial is on its pages, and what became of it.
"""

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from keys import lifecycle, oversight
from portal import trials as found
from portal.models import User
from portal.staff import staff, staff_page
from usage import shadow, trials

_POLICY, _KEY = "keys.change_policy", "keys.change_key"


class ChooseForm(forms.Form):
    """Whose limits."""

    organization = forms.SlugField(
        max_length=50,
        label="Organization",
        widget=forms.TextInput({"autocomplete": "off", "placeholder": "Its slug"}),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@staff
def staff_trials(request: HttpRequest) -> HttpResponse:
    """The trials that run, and other limits of an organization to be tried."""
    now, sent = timezone.now(), found.sent(request)
    choose = ChooseForm(sent if "organization" in sent else None)
    customer = oversight.organization(choose.cleaned_data["organization"]) if choose.is_valid() else None
    if choose.is_valid() and customer is None:
        choose.add_error("organization", "There is no organization with this slug.")
    page = found.running_everywhere(request.GET.get("page"))
    context: dict[str, object] = {
        "page": page,
        "rows": [(trial, found.changes(trial)) for trial in page.object_list],
        "choose": choose,
        "customer": customer,
    }
    if customer is None:
        return staff_page(request, "staff/trials.html", context, status=400 if choose.errors else 200)
    if request.method == "POST":
        _require(request, _POLICY)
    assert isinstance(request.user, User)  # as `staff` has seen to
    actor = lifecycle.staff_actor(request.user)
    tried = found.attempt(
        request,
        found.TryAllForm(customer, sent),
        start=lambda days, limits: trials.start_for_all(actor, customer, days=days, now=now, **limits),
        look=lambda limits: shadow.look_back_on_all(customer, trials.propose_for_all(**limits), now),
    )
    if tried.started is not None:
        messages.success(request, f"The trial has begun. {customer.name} sees it too.")
        return redirect("staff_trial", tried.started.pk)
    context |= tried.context | {"running": found.running(customer, None)}
    return staff_page(request, "staff/trials.html", context, status=tried.status)


@require_http_methods(["GET", "HEAD", "POST"])
@staff
def staff_trial(request: HttpRequest, trial_id: int) -> HttpResponse:
    """What a trial would have refused; a POST applies or discards it."""
    trial = found.find(trial_id)
    if trial is None:
        raise Http404
    now, permission = timezone.now(), _KEY if trial.key else _POLICY
    if request.method == "POST":
        _require(request, permission)
        assert isinstance(request.user, User)  # as `staff` has seen to
        act = trials.apply if request.POST.get("act") == "apply" else trials.discard
        done, sentence = found.end(act, lifecycle.staff_actor(request.user), trial, now)
        (messages.success if done else messages.error)(request, sentence)
        return redirect("staff_trial", trial.pk)
    may_end = request.user.has_perm(permission)
    page = found.page(trial, now, days_back=request.GET.get("since") == "before")
    return staff_page(
        request, "staff/trial.html", {"page": page, "trial": trial, "days": shadow.DAYS, "may_end": may_end}
    )


def _require(request: HttpRequest, permission: str) -> None:
    """Whoever may not change it in the admin may not try it here either."""
    if not request.user.has_perm(permission):
        raise PermissionDenied
