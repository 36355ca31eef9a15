"""The door to an organization's pages: `@member(Act.X)` on every view under `/o/<slug>/`.

It finds the organization by the reader's own membership, or by the visit of one of the staff, so that a view
cannot reach another tenant's rows: a stranger's page and a page that does not exist are the same 404. Here
alone, and not by what pages show, every write under a visit is refused.
"""

import functools
from collections.abc import Callable
from typing import Any, Final

from django.contrib.auth.models import PermissionsMixin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.cache import add_never_cache_headers

from keys.audit import Actor
from keys.lifecycle import Forbidden, member_actor, visitor_actor
from keys.models import Membership, Organization, Visit
from keys.permissions import VISITOR, Act, allows

VISIT: Final = "visit"  # in the session: the primary key of the visit that was begun in it
_READS: Final = ("GET", "HEAD", "OPTIONS")

type View = Callable[..., HttpResponseBase]


class MemberRequest(HttpRequest):
    """A request that `member` has let in."""

    organization: Organization
    membership: Membership
    memberships: list[Membership]  # all of the reader's, by the names of their organizations
    actor: Actor
    visit: Visit | None


def may_visit(user: object) -> bool:
    """May this person look at customers' pages?"""
    return isinstance(user, PermissionsMixin) and user.has_perm("keys.visit_organization") and _is_staff(user)


def visit_of(request: HttpRequest) -> Visit | None:
    """The visit that was begun in this session by who is signed in, over or not, if they still may."""
    user, number = request.user, request.session.get(VISIT)
    if number is None or not user.is_authenticated or not may_visit(user):
        return None
    visits = Visit.objects.filter(pk=number, user_id=user.pk)
    return visits.select_related("organization__policy").first()


def _is_staff(user: object) -> bool:
    return bool(getattr(user, "is_staff", False) and getattr(user, "is_active", False))


def member(act: Act) -> Callable[[View], View]:
    """Let in members of the organization in the URL whose role allows `act`.

    Without sign-in: a redirect to it. No member: 404. The role does not allow it: 403. The view gets a
    `MemberRequest` and the URL's other arguments. Who visits the organization may look, also where they are
    a member, and after the visit's end is sent to where another begins; what they may not do is a 403 that
    keeps the frame of the pages they look at, so that they find back.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, organization: str, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            visit = visit_of(request)
            if visit is not None and visit.organization.slug != organization:
                visit = None
            if visit is not None and visit.is_over(timezone.now()):
                return redirect("staff_visit", organization=organization)
            # All of them at once: the shell names the others.
            mine = Membership.objects.filter(user_id=request.user.pk).select_related("organization__policy")
            memberships = list(mine.order_by("organization__name", "organization_id"))
            membership = _membership(memberships, organization, visit)
            request.visit = visit  # type: ignore[attr-defined]  # makes it a MemberRequest
            request.memberships = memberships  # type: ignore[attr-defined]  # as above
            request.membership = membership  # type: ignore[attr-defined]  # as above
            request.organization = membership.organization  # type: ignore[attr-defined]  # as above
            request.actor = (  # type: ignore[attr-defined]  # as above
                visitor_actor(request.user) if visit else member_actor(request.user, membership)
            )
            try:
                if not allows(membership.role, act) or (visit and request.method not in _READS):
                    raise PermissionDenied
                response = view(request, **kwargs)
            except (PermissionDenied, Forbidden) as error:
                if visit is None:
                    raise PermissionDenied(*error.args) from error
                response = render(request, "keys/only_seen.html", status=403)
            # Pages behind sign-in stay out of shared caches and of the back button after sign-out.
            add_never_cache_headers(response)
            return response

        guarded.act = act  # type: ignore[attr-defined]  # read by the route × role test
        return guarded

    return decorate


def _membership(mine: list[Membership], slug: str, visit: Visit | None) -> Membership:
    """What the reader is in the organization of this slug; a visitor's is of no table. Raises Http404."""
    if visit is not None:
        return Membership(organization=visit.organization, user_id=visit.user_id, role=VISITOR)
    membership = next((each for each in mine if each.organization.slug == slug), None)
    if membership is None:
        raise Http404
    return membership
