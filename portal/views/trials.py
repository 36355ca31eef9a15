"""The pages where stricter limits are tried: looking back, starting a trial, what it came to, ending it."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from keys.access import MemberRequest, member
from keys.forms import RefusableForm, TryForm
from keys.permissions import Act
from portal import trials as found
from portal.refusals import holds_secret
from portal.trials import TryAllForm
from usage import shadow, trials
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
        TryForm(key, found.sent(request)),
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
        TryAllForm(organization, found.sent(request)),
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
    return _end(request, trial_id, trials.apply)


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def trial_discard(request: MemberRequest, trial_id: int) -> HttpResponse:
    """End a trial; nothing changes."""
    return _end(request, trial_id, trials.discard)


def _try(
    request: MemberRequest,
    form: RefusableForm,
    *,
    start: Callable[[int, dict[str, Any]], Trial],
    look: Callable[[dict[str, Any]], Shadow],
    template: str,
    context: dict[str, object],
) -> HttpResponse:
    if holds_secret(found.sent(request)):
        messages.warning(request, "A key does not belong into these fields. Nothing was tried.")
        return redirect(request.path)
    tried = found.attempt(request, form, start=start, look=look)
    if tried.started is None:
        return render(request, template, context | tried.context, status=tried.status)
    messages.success(request, "The trial has begun. It refuses nothing.")
    return redirect("trial", request.organization.slug, tried.started.pk)


def _end(request: MemberRequest, trial_id: int, act: Callable[..., Trial]) -> HttpResponse:
    asked = _trial(request, trial_id)
    if request.method == "POST":
        done, sentence = found.end(act, request.actor, asked, timezone.now())
        (messages.success if done else messages.error)(request, sentence)
    return redirect("trial", request.organization.slug, asked.pk)


def _trial(request: MemberRequest, trial_id: int) -> Trial:
    rows = request.organization.trials.select_related("organization__policy", "key__organization")
    return get_object_or_404(rows, pk=trial_id)
