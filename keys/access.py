"""The door to an organization's pages: `@member(Act.X)` on every view under `/o/<slug>/`.

It finds the organization by the reader's own membership, so that a view cannot reach another tenant's
rows: a stranger's page and a page that does not exist are the same 404.
"""

import functools
from collections.abc import Callable
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import add_never_cache_headers

from keys.audit import Actor
from keys.lifecycle import Forbidden, member_actor
from keys.models import Membership, Organization
from keys.permissions import Act, allows

type View = Callable[..., HttpResponseBase]


class MemberRequest(HttpRequest):
    """A request that `member` has let in."""

    organization: Organization
    membership: Membership
    memberships: list[Membership]  # all of the reader's, by the names of their organizations
    actor: Actor


def member(act: Act) -> Callable[[View], View]:
    """Let in members of the organization in the URL whose role allows `act`.

    Without sign-in: a redirect to it. No member: 404. The role does not allow it: 403. The view gets a
    `MemberRequest` and the URL's other arguments.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, organization: str, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            # All of them at once: the shell names the others.
            mine = Membership.objects.filter(user_id=request.user.pk).select_related("organization__policy")
            memberships = list(mine.order_by("organization__name", "organization_id"))
            membership = next((each for each in memberships if each.organization.slug == organization), None)
            if membership is None:
                raise Http404
            if not allows(membership.role, act):
                raise PermissionDenied
            request.memberships = memberships  # type: ignore[attr-defined]  # makes it a MemberRequest
            request.membership = membership  # type: ignore[attr-defined]  # as above
            request.organization = membership.organization  # type: ignore[attr-defined]  # as above
            request.actor = member_actor(request.user, membership)  # type: ignore[attr-defined]  # as above
            try:
                response = view(request, **kwargs)
            except Forbidden as error:
                raise PermissionDenied(error.sentence) from error
            # Pages behind sign-in stay out of shared caches and of the back button after sign-out.
            if isinstance(response, HttpResponse):
                add_never_cache_headers(response)
            return response

        guarded.act = act  # type: ignore[attr-defined]  # read by the route × role test
        return guarded

    return decorate
