"""What staff see of policies at work: requests for scopes that wait, and keys that are outside their policy.

A policy's keys are looked at a lot at a time, the newest first, so that the page is as quick at a million of
them as at ten. It reads and never writes, but for the decision that a form carries.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from keys import effects, lifecycle, oversight
from keys.compliance import SENTENCES, Terms
from keys.lifecycle import Refused
from keys.models import Key, Policy
from portal.models import User
from portal.staff import staff, staff_page

REQUESTS: Final = 50
LOT: Final = 2000  # keys looked at for one page
SHOWN: Final = 100  # of them that one page lists


class DecisionForm(forms.Form):
    """What to do about a request; a denial says why."""

    decision = forms.ChoiceField(choices=[("approve", "Approve"), ("deny", "Deny")])
    note = forms.CharField(required=False, max_length=200)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("decision") == "deny" and not data.get("note"):
            raise forms.ValidationError("Say why it is denied: the customer reads it.")
        return data

    def sentence(self) -> str:
        """The first thing that is wrong."""
        return str(next(iter(self.errors.values()))[0])


@require_safe
@staff
def requests(request: HttpRequest) -> HttpResponse:
    """Requests for scopes that nobody has decided, the oldest first, each with its decision in place."""
    found = list(oversight.waiting_requests()[: REQUESTS + 1])
    context = {"requests": found[:REQUESTS], "more": len(found) > REQUESTS}
    return staff_page(request, "staff/requests.html", context)


@require_http_methods(["POST"])
@staff
def decide(request: HttpRequest, request_id: int) -> HttpResponse:
    """Approve or deny one of them."""
    assert isinstance(request.user, User)  # as `staff` has seen to
    if not request.user.has_perm("keys.change_scoperequest"):
        raise PermissionDenied
    asked = oversight.scope_request(request_id)
    if asked is None:
        raise Http404
    form = DecisionForm(request.POST)
    if not form.is_valid():
        messages.error(request, form.sentence())
        return redirect("staff_requests")
    approve = form.cleaned_data["decision"] == "approve"
    act = lifecycle.approve_scope if approve else lifecycle.deny_scope
    who, note = lifecycle.staff_actor(request.user), form.cleaned_data["note"]
    try:
        act(who, asked, note=note, now=timezone.now())
    except Refused as refused:
        messages.error(request, refused.sentence)
    else:
        done = "has" if approve else "does not get"
        messages.success(request, f"{asked.key.name} {done} {asked.scope}. Who asked gets a mail.")
    return redirect("staff_requests")


class OutsideKey(NamedTuple):
    """A key, and in words what of the policy it breaks."""

    key: Key
    sentences: list[str]


@dataclass(frozen=True, slots=True)
class Outsiders:
    """One lot of a policy's keys."""

    policy: Policy
    keys: list[OutsideKey]
    looked_at: int
    next: int | None  # where to look further; None: these were the last


def outsiders(policy: Policy, before: int | None, now: dt.datetime) -> Outsiders:
    """Those of the newest keys, or of those made before the key of this number, that break the policy."""
    keys = oversight.keys().filter(organization__policy=policy, revoked_at=None)
    if before is not None:
        keys = keys.filter(pk__lt=before)
    numbers = list(keys.order_by("-pk").values_list("pk", flat=True)[:LOT])
    lot = keys.filter(pk__gte=numbers[-1]) if numbers else keys.none()
    found = sorted(effects.outside(lot, Terms.of(policy), now), key=lambda each: -each.key.pk)
    last = numbers[-1] if len(numbers) == LOT else None
    if len(found) > SHOWN:
        last = found[SHOWN - 1].key.pk
    return Outsiders(
        policy=policy,
        keys=[OutsideKey(each.key, [SENTENCES[rule] for rule in each.rules]) for each in found[:SHOWN]],
        looked_at=sum(last is None or number >= last for number in numbers),
        next=last,
    )


@require_safe
@staff
def outside(request: HttpRequest) -> HttpResponse:
    """Keys that a policy would not let be made as they are; they go on working."""
    policies = list(oversight.policies())
    slug, before = request.GET.get("policy", ""), request.GET.get("before", "")
    policy = next((each for each in policies if each.slug == slug), policies[0] if policies else None)
    number = int(before) if before.isascii() and before.isdigit() and len(before) <= 18 else None
    page = None if policy is None else outsiders(policy, number, timezone.now())
    return staff_page(request, "staff/outside.html", {"page": page, "policies": policies})
