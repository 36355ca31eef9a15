"""The pages where stricter limits are tried: looking back, starting a trial, what it came to, ending it."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from keys.access import MemberRequest, member
from keys.forms import RefusableForm, TryForm
from keys.lifecycle import Conflict, Invalid
from keys.permissions import Act
from portal import trials as found
from portal.refusals import holds_secret
from portal.trials import DaysForm, TryAllForm
from usage import reports, shadow, trials
from usage.models import Trial
from usage.shadow import Shadow


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_try(request: MemberRequest, key_id: str) -> HttpResponse:
    """What stricter settings of a key would have refused; and start a trial of them."""
    now = timezone.now()
    keys = request.organization.keys.select_related("organization__policy").prefetch_related("scopes")
    key = get_object_or_404(keys, public_id=key_id)
    if key.revoked_at is not None:
        messages.error(request, "A revoked key refuses every call.")
        return redirect("key", request.organization.slug, key.public_id)
    return _try(
        request,
        TryForm(key, _sent(request)),
        start=lambda days, limits: trials.start(request.actor, key, days=days, now=now, **limits),
        look=lambda limits: shadow.look_back(key, shadow.propose(key, **limits), now),
        template="portal/key_try.html",
        context={"key": key, "running": found.running(request.organization, key)},
    )


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def trial_new(request: MemberRequest) -> HttpResponse:
    """The same for limits that all keys of the organization share."""
    now, organization = timezone.now(), request.organization
    return _try(
        request,
        TryAllForm(organization, _sent(request)),
        start=lambda days, limits: trials.start_for_all(
            request.actor, organization, days=days, now=now, **limits
        ),
        look=lambda limits: shadow.look_back_on_all(organization, trials.propose_for_all(**limits), now),
        template="portal/trial_new.html",
        context={"running": found.running(organization, None)},
    )


@member(Act.VIEW)
@require_safe
def trials_list(request: MemberRequest) -> HttpResponse:
    """The organization's trials."""
    page = found.of_organization(request.organization, request.GET.get("page"))
    rows = [(trial, found.changes(trial)) for trial in page.object_list]
    return render(request, "portal/trials.html", {"page": page, "rows": rows})


@member(Act.VIEW)
@require_safe
def trial(request: MemberRequest, trial_id: int) -> HttpResponse:
    """What a trial would have refused since it began, or in the last days."""
    page = found.page(
        _trial(request, trial_id), timezone.now(), days_back=request.GET.get("since") == "before"
    )
    return render(request, "portal/trial.html", {"page": page, "trial": page.trial, "days": shadow.DAYS})


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def trial_apply(request: MemberRequest, trial_id: int) -> HttpResponse:
    """Make what was tried the key's settings."""
    asked = _trial(request, trial_id)
    if request.method == "POST":
        try:
            trials.apply(request.actor, asked, now=timezone.now())
        except (Invalid, Conflict) as refusal:
            messages.error(request, refusal.sentence)
        else:
            messages.success(request, "Applied. Gateways follow within a second.")
    return redirect("trial", request.organization.slug, asked.pk)


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def trial_discard(request: MemberRequest, trial_id: int) -> HttpResponse:
    """End a trial; nothing changes."""
    asked = _trial(request, trial_id)
    if request.method == "POST":
        try:
            trials.discard(request.actor, asked, now=timezone.now())
        except Conflict as refusal:
            messages.info(request, refusal.sentence)
        else:
            messages.success(request, "Discarded. Nothing has changed.")
    return redirect("trial", request.organization.slug, asked.pk)


def _sent(request: MemberRequest) -> QueryDict:
    return request.POST if request.method == "POST" else request.GET


def _try(
    request: MemberRequest,
    form: RefusableForm,
    *,
    start: Callable[[int, dict[str, Any]], Trial],
    look: Callable[[dict[str, Any]], Shadow],
    template: str,
    context: dict[str, object],
) -> HttpResponse:
    """Look back at what the form's limits would have refused; a POST starts a trial of them."""
    if holds_secret(_sent(request)):
        messages.warning(request, "A key does not belong into these fields. Nothing was tried.")
        return redirect(request.path)
    length = DaysForm(request.POST if request.method == "POST" else None)
    result = None
    if form.is_valid():
        try:
            if not length.is_bound:
                result = look(form.cleaned_data)
            elif length.is_valid():
                trial = start(length.cleaned_data["days"], form.cleaned_data)
                messages.success(request, "The trial has begun. It refuses nothing.")
                return redirect("trial", request.organization.slug, trial.pk)
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
    context |= {
        "form": form,
        "length": length,
        "result": result,
        "days": shadow.DAYS,
        "query": request.GET.urlencode(),
        "carried": found.carried(_sent(request)),
        "complete_through": reports.complete_through(),
    }
    is_wrong = form.errors or length.errors
    return render(request, template, context, status=400 if is_wrong else 200)


def _trial(request: MemberRequest, trial_id: int) -> Trial:
    rows = request.organization.trials.select_related("organization__policy", "key__organization")
    return get_object_or_404(rows, pk=trial_id)
