"""The public docs, for everybody. Nothing here changes anything.

What stands around each page is `portal.docs`'s to say, and what it lists `portal.reference`'s.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from keys import examples
from portal import api_reference, reference
from portal import docs as pages


def _page(request: HttpRequest, name: str, **context: Any) -> HttpResponse:  # a template's
    """The page of this name, from the template of the same name."""
    return render(request, f"portal/{name}.html", context | {"doc": pages.frame(name)})


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """Where to begin, and everything there is."""
    return _page(request, "docs", example=examples.first_call())


@require_safe
def docs_authentication(request: HttpRequest) -> HttpResponse:
    """How to send a key, and what an answer says about it."""
    return _page(
        request,
        "docs_authentication",
        example=examples.first_call(),
        prefix=settings.KEY_PREFIX,
        parameter=settings.KEY_QUERY_PARAMETER,
    )


@require_safe
def docs_scopes(request: HttpRequest) -> HttpResponse:
    """What keys may be allowed to do, by resource."""
    return _page(
        request, "docs_scopes", groups=reference.scope_groups(), portal_scopes=reference.portal_scopes()
    )


@require_safe
def docs_limits(request: HttpRequest) -> HttpResponse:
    """Rates, quotas and their headers."""
    return _page(request, "docs_limits")


@require_safe
def docs_rotation(request: HttpRequest) -> HttpResponse:
    """A new secret, step by step."""
    return _page(request, "docs_rotation", lines=reference.key_lines())


@require_safe
def docs_expiry(request: HttpRequest) -> HttpResponse:
    """Reminders, the header, brownouts."""
    return _page(request, "docs_expiry")


@require_safe
def docs_errors(request: HttpRequest) -> HttpResponse:
    """Every refusal, with what to do; a problem document's `type` points to `#CODE` here."""
    return _page(request, "docs_errors", codes=reference.codes())


@require_safe
def docs_gateway(request: HttpRequest) -> HttpResponse:
    """For those who run the API: how each proxy asks before every call."""
    return _page(
        request,
        "docs_gateway",
        recipes=reference.recipes(),
        rule=reference.RULE,
        identity=reference.IDENTITY,
    )


@require_safe
def docs_api(request: HttpRequest) -> HttpResponse:
    """The machine API, operation by operation, to be tried."""
    return _page(request, "docs_api", groups=api_reference.groups(timezone.now().date()))


@require_safe
def docs_keys(request: HttpRequest) -> HttpResponse:
    """For programs that make, rotate and revoke their organization's keys."""
    return _page(request, "docs_keys", lines=reference.key_lines(), fields=reference.KEY_FIELDS)


@require_safe
def docs_meters(request: HttpRequest) -> HttpResponse:
    """What is counted, in which units, and how resources are kept apart."""
    return _page(request, "docs_meters", meters=reference.meters(), kept=settings.USAGE_RESOURCES)


@require_safe
def docs_usage(request: HttpRequest) -> HttpResponse:
    """For those who run the API: usage from elsewhere, held calls, and for everybody: usage read back."""
    return _page(
        request,
        "docs_usage",
        lines=reference.usage_lines(),
        event=reference.EVENT,
        rejections=reference.rejections(),
    )


@require_safe
def docs_billing(request: HttpRequest) -> HttpResponse:
    """How a statement is made, line by line, and how to check one."""
    url = f"{settings.PORTAL_URL}{reverse('docs_check_statement')}"
    command = f"curl -O {url}\npython3 check_statement.py 2026-05.csv 2026-06.csv"
    return _page(request, "docs_billing", columns=reference.STATEMENT, command=command)


@require_safe
def docs_check_statement(request: HttpRequest) -> HttpResponse:
    """The script that checks a statement, to be kept."""
    answer = HttpResponse(reference.check_statement(), content_type="text/x-python; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="check_statement.py"'
    return answer


@require_safe
def docs_leaks(request: HttpRequest) -> HttpResponse:
    """What happens when a key gets out, and how to find keys before others do."""
    return _page(
        request,
        "docs_leaks",
        patterns=reference.patterns(),
        live=settings.LEAK_RESPONSE_LIVE,
        test=settings.LEAK_RESPONSE_TEST,
    )
