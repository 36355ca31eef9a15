"""The organization's audit trail: parse, ask `portal.activity`, answer."""

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from keys.access import MemberRequest, member
from keys.permissions import Act
from portal import activity as found


@member(Act.VIEW_ACTIVITY)
@require_safe
def activity(request: MemberRequest) -> HttpResponse:
    """Everything that was done in the organization, newest first."""
    page = found.activity(request.organization, request.membership, request.GET)
    return render(request, "portal/activity.html", {"page": page})


@member(Act.VIEW_ACTIVITY)
@require_safe
def activity_csv(request: MemberRequest) -> StreamingHttpResponse:
    """The list, all of its pages, as a file."""
    name = f"activity-{request.organization.slug}.csv"
    return StreamingHttpResponse(
        found.file(request.organization, request.GET),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
