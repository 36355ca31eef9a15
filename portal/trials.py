"""Trials as pages show them, and the mail that tells what one came to; `usage.trials` has their acts."""

import datetime as dt
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from django import forms
from django.conf import settings
from django.core.paginator import Page, Paginator
from django.http import HttpRequest, QueryDict
from django.urls import reverse

from keys.audit import Actor
from keys.forms import QUOTAS_HELP, RATES_HELP, TRIED, AmountsForm, RefusableForm
from keys.lifecycle import Conflict, Invalid
from keys.models import Key, Organization
from keys.permissions import Role
from portal import outbox
from usage import reports, shadow, trials
from usage.models import Outcome, Trial
from usage.shadow import Shadow

PAGE: Final = 25
# A setting's name, and what it is when it is empty.
_NAMES: Final = {
    "scopes": ("Scopes", "none"),
    "networks": ("Allowed networks", "anywhere"),
    "rates": ("Rate limits", "none"),
    "quotas": ("Quotas", "none"),
}
_HOUR: Final = dt.timedelta(hours=1)


class DaysForm(RefusableForm):
    """How long a trial runs."""

    days = forms.TypedChoiceField(
        label="Length of the trial",
        choices=[(days, f"{days} days") for days in trials.DAYS],
        coerce=int,
        initial=trials.DAYS[1],
    )


class TryAllForm(AmountsForm):
    """Limits that all keys of an organization share, to see what stricter ones would refuse."""

    def __init__(self, organization: Organization, query: QueryDict) -> None:
        policy = organization.policy
        initial = {"rates": policy.rates, "quotas": policy.quotas}
        super().__init__(query if TRIED in query else None, initial=initial)
        self.fields["rates"].help_text = f"{RATES_HELP} Empty: no limit."
        self.fields["quotas"].help_text = f"{QUOTAS_HELP} Empty: no limit."


class Change(NamedTuple):
    """A setting that is tried."""

    label: str
    before: list[str]
    after: list[str]
    none: str  # in words, for an empty one


class TrialPage(NamedTuple):
    """One trial. `result` is what it would have refused so far, while it runs."""

    trial: Trial
    changes: list[Change]
    result: Shadow | None
    days_back: bool  # before it began, too
    counted_from: dt.datetime  # the first whole hour, for rates and quotas
    complete_through: dt.datetime | None


class Tried(NamedTuple):
    """What came of a form with other limits: a trial that has begun, or what a page shows."""

    started: Trial | None
    context: dict[str, object]
    status: int


def attempt(
    request: HttpRequest,
    form: RefusableForm,
    *,
    start: Callable[[int, dict[str, Any]], Trial],
    look: Callable[[dict[str, Any]], Shadow],
) -> Tried:
    """Look back at what the form's limits would have refused; a POST starts a trial of them."""
    length = DaysForm(request.POST if request.method == "POST" else None)
    result = None
    if form.is_valid():
        try:
            if not length.is_bound:
                result = look(form.cleaned_data)
            elif length.is_valid():
                return Tried(start(length.cleaned_data["days"], form.cleaned_data), {}, 302)
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
    context: dict[str, object] = {
        "form": form,
        "length": length,
        "result": result,
        "days": shadow.DAYS,
        "query": request.GET.urlencode(),
        "carried": carried(sent(request)),
        "complete_through": reports.complete_through(),
    }
    return Tried(None, context, 400 if form.errors or length.errors else 200)


def sent(request: HttpRequest) -> QueryDict:
    return request.POST if request.method == "POST" else request.GET


def end(act: Callable[..., Trial], actor: Actor, trial: Trial, now: dt.datetime) -> tuple[bool, str]:
    """Apply or discard it, by `usage.trials`' function: was it done, and what to say."""
    try:
        ended = act(actor, trial, now=now)
    except (Invalid, Conflict) as refusal:
        return False, refusal.sentence
    if ended.outcome == Outcome.APPLIED:
        return True, "Applied. Gateways follow within a second."
    return True, "Discarded. Nothing has changed."


def carried(query: QueryDict) -> list[tuple[str, str]]:
    """The settings that were tried, as hidden fields of the form that starts a trial of them."""
    found = [("scopes", value) for value in query.getlist("scopes")]
    found += [(name, query.get(name, "")) for name in ("networks", "rates", "quotas") if name in query]
    return [(TRIED, "1"), *found]


def running(organization: Organization, key: Key | None) -> Trial | None:
    """The trial that runs on a key, or on the whole organization."""
    return organization.trials.running().filter(key=key).first()


def of_organization(organization: Organization, number: str | None) -> Page[Trial]:
    """Its trials, those that run first, then the newest; `number` is a page's, from the address."""
    found = organization.trials.select_related("key")
    return Paginator(found.order_by("outcome", "-started_at", "-pk"), PAGE).get_page(number)


def running_everywhere(number: str | None) -> Page[Trial]:
    """Everybody's trials that run, those that end first before the others; for staff."""
    found = Trial.objects.running().select_related("organization", "key")
    return Paginator(found.order_by("ends_at", "pk"), PAGE).get_page(number)


def find(pk: int) -> Trial | None:
    """Anybody's trial; for staff."""
    rows = Trial.objects.select_related("organization__policy", "key__organization")
    return rows.filter(pk=pk).first()


def page(trial: Trial, now: dt.datetime, *, days_back: bool) -> TrialPage:
    """One trial's page; `days_back` judges the last days instead of those since it began."""
    since = shadow.days_back(now) if days_back else trial.started_at
    begun = trial.started_at.replace(minute=0, second=0, microsecond=0)
    return TrialPage(
        trial=trial,
        changes=changes(trial),
        result=trials.judge(trial, since) if trial.ended_at is None else None,
        days_back=days_back,
        counted_from=begun if begun == trial.started_at else begun + _HOUR,
        complete_through=reports.complete_through(),
    )


def changes(trial: Trial) -> list[Change]:
    """What it tries, in the order of the key's page."""
    found = []
    for name, (label, none) in _NAMES.items():
        if name in trial.changes:
            before, after = trial.changes[name]
            found.append(Change(label, before, after, none))
    return found


def end_due(now: dt.datetime, *, stop: Callable[[], bool] = lambda: False) -> int:
    """End the trials whose time is over, and queue a mail about each, to its starter and the owners."""
    return trials.end_due(reports.complete_through(), now, lambda trial: _tell(trial, now), stop=stop)


def _tell(trial: Trial, now: dt.datetime) -> None:
    organization = trial.organization
    url = reverse("trial", kwargs={"organization": organization.slug, "trial_id": trial.pk})
    context = {
        "organization": organization.name,
        "subject": f"“{trial.key.name}”" if trial.key else "all keys together",
        "days": (trial.ends_at - trial.started_at).days,
        "changes": changes(trial),
        "result": trial.result,
        "url": f"{settings.PORTAL_URL}{url}",
    }
    to = outbox.recipients(organization, [Role.OWNER], also=[trial.started_by])
    outbox.queue(f"trial:{trial.pk}", "trial_over", context, to, now, organization=organization)
