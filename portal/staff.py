"""The staff's pages below /staff/: trouble first, usage of everybody, and whose key this is.

They are read-only and for staff alone; whatever staff change, they change in the admin. To anyone else who
is signed in they do not exist.
"""

import datetime as dt
import functools
from collections.abc import Callable
from typing import Any, cast

from django import forms
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from keys import oversight
from keys.verdicts import Code
from portal import attention as signals
from portal import leak_pages, staff_billing, staff_keys
from portal import refusals as found
from portal.charts import bar_chart
from portal.context import NavItem
from portal.pages import percent
from portal.refusals import SearchForm
from portal.staff_keys import FindKeyForm, Search
from usage import meters, reports, staff_reports
from usage.billing import Period
from usage.meters import REQUESTS, Meter

DAYS = 30
_PAGES = (
    ("Staff overview", "staff", "overview"),
    ("Usage", "staff_usage", "usage"),
    ("Refusals", "staff_refusals", "revoke"),
    ("Leaks", "staff_leaks", "danger"),
    ("Billing", "staff_billing", "billing"),
    ("Attention", "staff_attention", "warn"),
    ("Requests", "staff_requests", "check"),
    ("Outside policy", "staff_outside", "lock"),
    ("Trials", "staff_trials", "clock"),
    ("Find a key", "staff_find_key", "search"),
    ("Admin", "admin:index", "shield"),
)


def staff(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Let in staff. Without sign-in: a redirect to it. Anyone else: 404, as if there were no such page."""

    @functools.wraps(view)
    def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if not (request.user.is_staff and request.user.is_active):
            raise Http404
        response = view(request, **kwargs)
        add_never_cache_headers(response)
        return response

    return guarded


def staff_page(
    request: HttpRequest, template: str, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    here = request.resolver_match.url_name if request.resolver_match else ""
    nav = [NavItem(reverse(name), label, icon, name == here) for label, name, icon in _PAGES]
    return render(request, template, {"nav": nav, **context}, status=status)


@require_safe
@staff
def attention(request: HttpRequest) -> HttpResponse:
    """The keys with something amiss, the weightiest first, and whose they are."""
    now = timezone.now()
    page, rows = signals.ranked_keys(request.GET.get("page"), now)
    context = {"page": page, "rows": rows, "ranked": signals.ranked_organizations(now)}
    return staff_page(request, "staff/attention.html", context)


@require_safe
@staff
def overview(request: HttpRequest) -> HttpResponse:
    """Calls, customers, and everything that may need a hand."""
    now = timezone.now()
    end = now.astimezone(dt.UTC).date() + dt.timedelta(days=1)
    start = end - dt.timedelta(days=DAYS)
    days = staff_reports.daily(start, end)
    accepted, refused = sum(day.accepted for day in days), sum(day.refused for day in days)
    return staff_page(
        request,
        "staff/overview.html",
        {
            "today": days[-1],
            "accepted": accepted,
            "refused": refused,
            "refused_share": percent(refused, accepted + refused),
            "chart": bar_chart(
                [day.date for day in days], [day.accepted for day in days], [day.refused for day in days]
            ),
            "top": staff_reports.top_organizations(start, end),
            "newest": oversight.newest_organizations(),
            "expiring": oversight.expiring_keys(now),
            "spools": staff_reports.spools(now),
            "journals": staff_reports.journals(now),
            "full": staff_reports.full_resources(),
            "processes": oversight.processes(now),
            "chain": oversight.chain(),
            "complete_through": reports.complete_through(),
        },
    )


class UsageForm(forms.Form):
    """The filters of the usage table; the days include both ends."""

    organization = forms.CharField(required=False, max_length=50, label="Organization")
    key = forms.CharField(required=False, max_length=32, label="Key")
    start = forms.DateField(required=False, label="From", widget=forms.DateInput({"type": "date"}))
    end = forms.DateField(required=False, label="To", widget=forms.DateInput({"type": "date"}))
    meter = forms.ChoiceField(required=False, label="Meter")
    outcome = forms.ChoiceField(
        required=False,
        label="Outcome",
        choices=[
            ("", "All outcomes"),
            (Code.VALID.name, "Accepted"),
            ("refused", "Refused"),
            *((code.name, code.name) for code in Code if code is not Code.VALID),
        ],
    )

    def __init__(self, query: QueryDict, now: dt.datetime) -> None:
        self.today = now.astimezone(dt.UTC).date()
        days = {"start": self.today - dt.timedelta(days=DAYS - 1), "end": self.today}
        super().__init__({name: str(day) for name, day in days.items()} | query.dict())
        self.meters = meters.read()
        choices = [("", "All meters"), *((meter.name, meter.title) for meter in self.meters.values())]
        cast("forms.ChoiceField", self.fields["meter"]).choices = choices
        for name, text in (("organization", "Organization’s slug"), ("key", "Key’s id")):
            self.fields[name].widget.attrs.update(placeholder=text, autocomplete="off")
        for name, field in self.fields.items():
            field.widget.attrs.update(
                {"class": "input", "aria-label": str(field.label), "id": f"filter-{name}"}
            )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if self.errors:
            return data
        last = data.get("end") or self.today
        first = data.get("start") or dt.date.fromordinal(max(last.toordinal() - DAYS + 1, 1))
        if first > last:
            raise forms.ValidationError("The first day is after the last.")
        if (last - first).days >= staff_reports.MAX_DAYS or last.year > 9000:
            raise forms.ValidationError(f"Choose at most {staff_reports.MAX_DAYS} days.")
        organization = key = None
        if data.get("organization"):
            organization = oversight.organization(data["organization"])
            if organization is None:
                raise forms.ValidationError("There is no organization with this slug.")
        if data.get("key"):
            key = oversight.key(data["key"])
            if key is None or (organization is not None and key.organization_id != organization.pk):
                raise forms.ValidationError("There is no such key here.")
        data["filters"] = staff_reports.Filters(
            start=first,
            end=last + dt.timedelta(days=1),
            organization=organization,
            key=key,
            outcome=data.get("outcome", ""),
            meter=data.get("meter", ""),
        )
        return data

    @property
    def shown_meter(self) -> Meter | None:
        """The meter of all that is shown, if it is one."""
        if len(self.meters) == 1:
            return REQUESTS
        return self.meters.get(self.cleaned_data["meter"])


@require_safe
@staff
def usage(request: HttpRequest) -> HttpResponse:
    """Roll-ups by day and organization, under the chosen filters."""
    form = UsageForm(request.GET, timezone.now())
    if not form.is_valid():
        return staff_page(request, "staff/usage.html", {"form": form}, status=400)
    filters: staff_reports.Filters = form.cleaned_data["filters"]
    return staff_page(
        request,
        "staff/usage.html",
        {
            "form": form,
            "filters": filters,
            "last": filters.end - dt.timedelta(days=1),
            "meter": form.shown_meter,
            "table": staff_reports.table(filters, request.GET.get("page"), form.shown_meter),
            "complete_through": reports.complete_through(),
        },
    )


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
@staff
def refusals(request: HttpRequest) -> HttpResponse:
    """Which calls were refused, whoever made them. A search is a POST: it may hold a whole key."""
    search = SearchForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and search.is_valid():
        query, why_not = found.address_of(search.cleaned_data["q"], None)
        if query:
            return redirect(f"{reverse('staff_refusals')}?{query}")
        search.add_error("q", why_not)
    if found.holds_secret(request.GET):
        return redirect("staff_refusals")
    page = found.refusals(None, request.GET, timezone.now())
    status = 400 if search.errors or "organization" in page.form.errors else 200
    return staff_page(request, "staff/refusals.html", {"page": page, "search": search}, status)


@require_safe
@staff
def leaks(request: HttpRequest) -> HttpResponse:
    """Keys that were reported as leaked, the newest report first."""
    page = leak_pages.newest(request.GET.get("page"))
    may_choose = request.user.has_perm("keys.change_key") and any(
        leak.key.revoked_at is None for leak in page.object_list
    )
    return staff_page(request, "staff/leaks.html", {"page": page, "may_choose": may_choose})


@require_safe
@staff
def key_leaks(request: HttpRequest, key_id: str) -> HttpResponse:
    """Where one of them was found, and what it was used for since."""
    key = oversight.key(key_id)
    if key is None:
        raise Http404
    page = leak_pages.key_leaks(key, request.GET, timezone.now())
    return staff_page(request, "staff/key_leaks.html", {"page": page, "key": key})


@require_safe
@staff
def billing(request: HttpRequest) -> HttpResponse:
    """What a month brings in, which months are closed, and credits."""
    now, problem = timezone.now(), ""
    current = period = Period.of(now)
    try:
        period = Period.parse(request.GET.get("period", str(current)))
    except ValueError as error:
        problem = str(error)
    if period > current:
        period, problem = current, f"{period} has not begun."
    page = staff_billing.page(period, now)
    context = {"page": page, "problem": problem, "current": current}
    return staff_page(request, "staff/billing.html", context, status=400 if problem else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
@staff
def find_key(request: HttpRequest) -> HttpResponse:
    """Which key is this, and why was it refused? A search is a POST: it may hold a whole key."""
    posted = request.method == "POST"
    form, found = FindKeyForm(request.POST if posted else None), Search([])
    if posted and form.is_valid():
        found = staff_keys.search(form.cleaned_data["secret"], timezone.now())
        if found.why_not:
            form.add_error("secret", found.why_not)
    status = 400 if form.errors else 200
    return staff_page(request, "staff/find_key.html", {"form": form, "search": found}, status)
