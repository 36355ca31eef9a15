"""An organization's attention page: what may be amiss with its keys, and what mends it."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_safe

from keys.access import MemberRequest, member
from keys.lifecycle import Conflict, Invalid
from keys.permissions import Act
from portal import attention as found
from usage import watch
from usage.signals import Kind


@member(Act.VIEW)
@require_safe
def attention(request: MemberRequest) -> HttpResponse:
    """What may be amiss with the organization's keys, or what somebody has dismissed of it."""
    now = timezone.now()
    context: dict[str, object] = {
        "attention": found.of_organization(request.organization, request.GET.get("page"), now)
    }
    if request.GET.get("show") == "dismissed":
        page = found.dismissed(request.organization, request.GET.get("page"), now)
        context |= {
            "is_dismissed": True,
            "hidden": page,
            "rows": [(each, watch.title(each)) for each in page.object_list],
        }
    return render(request, "portal/attention.html", context)


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def signal_mend(request: MemberRequest, key_id: str, kind: str) -> HttpResponse:
    """Do what the page proposed for a signal."""
    keys = request.organization.keys.select_related("organization__policy", "created_by")
    key = get_object_or_404(keys, public_id=key_id)
    if kind not in Kind:
        raise Http404
    if request.method == "POST":
        proposal = request.POST.get("proposal", "")
        try:
            done = found.mend(request.actor, key, Kind(kind), proposal, timezone.now())
        except (Conflict, Invalid) as refusal:
            messages.error(request, refusal.sentence)
        else:
            messages.success(request, f"“{key.name}”: {done}.")
    return _back(request)


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def signal_dismiss(request: MemberRequest, key_id: str, kind: str) -> HttpResponse:
    """Show a signal no more, or not for a while."""
    key = get_object_or_404(request.organization.keys, public_id=key_id)
    if kind not in Kind:
        raise Http404
    signal = request.organization.signals.filter(key=key, kind=kind).select_related("key").first()
    if request.method == "POST":
        snooze = "snooze" in request.POST
        try:
            if signal is None:
                raise Conflict("This is settled already.")
            watch.dismiss(request.actor, signal, snooze=snooze, now=timezone.now())
        except Conflict as refusal:
            messages.info(request, refusal.sentence)
        else:
            days = watch.SNOOZE.days
            messages.success(request, f"It comes back in {days} days." if snooze else "Dismissed.")
    return _back(request)


def _back(request: MemberRequest) -> HttpResponse:
    """To the page whose button it was, which is one of ours."""
    here = request.POST.get("next", "")
    if here.startswith(f"/o/{request.organization.slug}/") and url_has_allowed_host_and_scheme(here, None):
        return redirect(here)
    return redirect("attention", request.organization.slug)
