"""The team's pages, and the page that an invitation's mail leads to: parse, call `portal.team`, answer.

Rows are reached through `request.organization` only; the invitation's own page is for whoever has its link,
and lets in only whom it is for.
"""

from collections.abc import Callable
from functools import partial

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from keys import lifecycle
from keys.access import MemberRequest, member
from keys.lifecycle import Conflict, Forbidden, Invalid
from keys.models import Invitation, Membership
from keys.permissions import Act, Role, allows
from keys.recent import recent_sign_in_required
from portal import team as people
from portal.models import User


@member(Act.VIEW_TEAM)
@require_safe
def team(request: MemberRequest) -> HttpResponse:
    """Who is in the organization, who is asked to join, and what each role may do."""
    now = timezone.now()
    manages = allows(request.membership.role, Act.MANAGE_TEAM)
    context = {
        "page": people.members(request.organization, request.GET.get("page")),
        "waiting": people.waiting(request.organization, request.actor, now) if manages else [],
        "roles": people.role_rows(),
        "acts": people.act_rows(),
    }
    return render(request, "portal/team.html", context)


@member(Act.MANAGE_TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
@recent_sign_in_required
def team_invite(request: MemberRequest) -> HttpResponse:
    """Ask an address to join."""
    form = people.InviteForm(
        request.actor,
        request.POST if request.method == "POST" else None,
        initial={"role": Role.DEVELOPER.value},
    )
    if request.method == "POST" and form.is_valid():
        try:
            invitation = people.invite(
                request.actor, request.organization, **form.cleaned_data, now=timezone.now()
            )
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, f"{invitation.email} is invited; a mail is on its way.")
            return redirect("team", request.organization.slug)
    return render(request, "portal/team_invite.html", {"form": form})


@member(Act.MANAGE_TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
def invitation_resend(request: MemberRequest, invitation_id: str) -> HttpResponse:
    """Mail an invitation again. Who comes by GET finds the button."""
    invitation = _invitation(request, invitation_id)
    if request.method != "POST":
        return redirect("team", request.organization.slug)
    resend = partial(people.resend, request.actor, invitation, now=timezone.now())
    return _done(request, resend, f"Sent to {invitation.email} again.")


@member(Act.MANAGE_TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
def invitation_withdraw(request: MemberRequest, invitation_id: str) -> HttpResponse:
    """Ask, then end an invitation."""
    invitation = _invitation(request, invitation_id)
    if request.method != "POST":
        return render(request, "portal/invitation_withdraw.html", {"invitation": invitation})
    withdraw = partial(people.withdraw, request.actor, invitation, now=timezone.now())
    return _done(request, withdraw, f"The invitation of {invitation.email} is withdrawn.")


@member(Act.MANAGE_TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
@recent_sign_in_required
def team_member(request: MemberRequest, member_id: int) -> HttpResponse:
    """Change a member's role."""
    membership = _member(request, member_id)
    form = people.RoleForm(
        request.actor,
        request.POST if request.method == "POST" else None,
        initial={"role": membership.role},
    )
    if request.method == "POST" and form.is_valid():
        try:
            lifecycle.change_role(request.actor, membership, form.cleaned_data["role"], now=timezone.now())
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, f"{membership.user} has the new role.")
            return redirect("team", request.organization.slug)
    return render(request, "portal/team_member.html", {"membership": membership, "form": form})


@member(Act.MANAGE_TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
@recent_sign_in_required
def team_remove(request: MemberRequest, member_id: int) -> HttpResponse:
    """Ask, then end somebody's membership."""
    membership = _member(request, member_id)
    if membership.pk == request.membership.pk:
        return redirect("team_leave", request.organization.slug)
    if request.method != "POST":
        kept = people.keys_left(request.organization, membership)
        return render(request, "portal/team_remove.html", {"membership": membership, "kept": kept})
    remove = partial(lifecycle.remove_member, request.actor, membership, now=timezone.now())
    return _done(request, remove, f"{membership.user} is no longer a member.")


@member(Act.VIEW_TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
def team_leave(request: MemberRequest) -> HttpResponse:
    """Ask, then end one's own membership."""
    if request.method != "POST":
        context = {
            "kept": people.keys_left(request.organization, request.membership, "you"),
            "is_only_owner": lifecycle.is_only_owner(request.membership),
        }
        return render(request, "portal/team_leave.html", context)
    try:
        lifecycle.remove_member(request.actor, request.membership, now=timezone.now())
    except Conflict as refusal:
        messages.error(request, refusal.sentence)
        return redirect("team", request.organization.slug)
    messages.success(request, f"You have left {request.organization.name}.")
    return redirect("home")


@member(Act.TRANSFER_OWNERSHIP)
@require_http_methods(["GET", "HEAD", "POST"])
@recent_sign_in_required
def team_transfer(request: MemberRequest) -> HttpResponse:
    """Make another member the owner, and oneself an admin."""
    form = people.TransferForm(
        request.organization, request.membership, request.POST if request.method == "POST" else None
    )
    if request.method == "POST" and form.is_valid():
        try:
            after = lifecycle.transfer_ownership(
                request.actor, request.organization, form.cleaned_data["to"], now=timezone.now()
            )
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, f"{after.user} is the owner now, and you are an admin.")
            return redirect("team", request.organization.slug)
    return render(request, "portal/team_transfer.html", {"form": form})


@never_cache
@require_safe
def invitation(request: HttpRequest, invitation_id: str) -> HttpResponse:
    """Who invites whom to what, and the way in for whom it is for."""
    return _show(request, _found(invitation_id))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def invitation_accept(request: HttpRequest, invitation_id: str) -> HttpResponse:
    """Join. Whoever it is not for sees the page again; so does who comes here by a reload or a bookmark."""
    found = _found(invitation_id)
    if request.method != "POST" or not isinstance(request.user, User):
        return redirect("invitation", invitation_id)
    try:
        people.accept(request.user, found, now=timezone.now())
    except (Conflict, Forbidden) as refusal:
        return _show(request, found, refusal.sentence, status=409)
    messages.success(request, f"Welcome to {found.organization.name}.")
    return redirect("overview", found.organization.slug)


def _done(request: MemberRequest, act: Callable[[], object], said: str) -> HttpResponse:
    """Back to the team after an act that was asked for, with what came of it."""
    try:
        act()
    except Conflict as refusal:
        messages.error(request, refusal.sentence)
    else:
        messages.success(request, said)
    return redirect("team", request.organization.slug)


def _show(request: HttpRequest, found: Invitation, refused: str = "", status: int = 200) -> HttpResponse:
    context = people.welcome(request.user, found, timezone.now()) | {"refused": refused}
    return render(request, "portal/invitation.html", context, status=status)


def _found(invitation_id: str) -> Invitation:
    found = people.find(invitation_id)
    if found is None:
        raise Http404
    return found


def _invitation(request: MemberRequest, invitation_id: str) -> Invitation:
    rows = request.organization.invitations.select_related("organization__policy")
    return get_object_or_404(rows, public_id=invitation_id)


def _member(request: MemberRequest, member_id: int) -> Membership:
    rows = request.organization.memberships.select_related("user", "organization")
    return get_object_or_404(rows, pk=member_id)
