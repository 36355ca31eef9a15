"""What the pages about refusals show, to a customer of one organization and to staff of all.

It joins the log's rows with keys and with words. A pasted key is looked up and forgotten: what stands in an
address afterwards is a key's id, its last four characters or a request id. It never writes.
"""

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.functional import cached_property
from django.views.decorators.debug import sensitive_variables

from keys import oversight, tokens
from keys.models import Key, Organization, Secret
from keys.verdicts import Code
from portal import mends
from portal.charts import BarChart, bar_chart
from portal.mends import Mend
from portal.pages import Badge, Reason, badge, reasons
from usage import refusal_reports, reports
from usage.exports.csv import guarded
from usage.models import Refusal
from usage.refusal_reports import Found

PAGE: Final = 50
DAYS: Final = 30  # of a key's timeline
NEWEST: Final = 10_000  # rows that are listed; a day or a key finds older ones
MANY: Final = 5  # keys with the same last four characters
NEITHER: Final = "This is neither a request id nor a key. A request id looks like 4nIsvQw8dRk-1284."
_CUT: Final = 64  # characters of what an address asks for
_KEY = re.compile(r"key_[0-9A-Za-z]{16}", re.ASCII)
_LAST_FOUR = re.compile(r"[0-9A-Za-z]{4}", re.ASCII)
_COLUMNS = ("request", "at", "code", "key", "key_name", "secret", "resource", "address", "user_agent", "more")


class FilterForm(forms.Form):
    """The list's filters; a value that makes no sense filters nothing."""

    code = forms.ChoiceField(
        required=False,
        choices=[("", "All reasons"), *((code.name, code.title) for code in Code if code is not Code.VALID)],
        widget=forms.Select(attrs={"class": "input", "aria-label": "Reason"}),
    )
    day = forms.DateField(
        required=False,
        widget=forms.DateInput({"type": "date", "class": "input", "aria-label": "Day (UTC)"}),
    )

    def chosen(self) -> dict[str, Any]:
        """`outcome` and `day`, as `refusal_reports.find` takes them."""
        self.is_valid()
        day: dt.date | None = self.cleaned_data.get("day")
        makes_sense = day is not None and 1970 < day.year < 9000
        return {"outcome": self.cleaned_data.get("code") or "", "day": day if makes_sense else None}


class StaffFilterForm(FilterForm):
    """Staff choose an organization, too; to mistype it is an error, for it would show everybody's."""

    organization = forms.CharField(
        required=False,
        max_length=50,
        widget=forms.TextInput(
            {
                "class": "input",
                "aria-label": "Organization",
                "placeholder": "Organization’s slug",
                "autocomplete": "off",
                "autocapitalize": "off",
                "spellcheck": "false",
            }
        ),
    )
    field_order = ("organization", "code", "day")

    def clean_organization(self) -> Organization | None:
        slug: str = self.cleaned_data["organization"]
        organization = oversight.organization(slug) if slug else None
        if slug and organization is None:
            raise forms.ValidationError("There is no organization with this slug.")
        return organization

    def chosen(self) -> dict[str, Any]:
        return super().chosen() | {"organization": self.cleaned_data.get("organization")}


class _Forgetful(forms.TextInput):
    """Never gives back what was typed, which may be a whole key."""

    def format_value(self, value: Any) -> None:
        return None


class SearchForm(forms.Form):
    """A request id, or a key; the page never gives a whole key back."""

    q = forms.CharField(
        max_length=tokens.MAX_LENGTH,
        label="Request ID or key",
        help_text="A whole key is sent in the body, looked up by its digest, and neither stored nor logged.",
        error_messages={"required": "Enter a request id or a key.", "max_length": "That is no key of ours."},
        widget=_Forgetful(
            {
                "placeholder": "X-Portal-Request, key ID, last four, or the key itself",
                "autocomplete": "off",
                "autocapitalize": "off",
                "spellcheck": "false",
            }
        ),
    )


class KeyFacts(NamedTuple):
    """A key that was searched for: would it work now?"""

    key: Key
    badge: Badge
    code: Code | None  # its calls are refused with; None: by nothing about the key itself
    mend: Mend | None
    ended: list[Secret]


class Row(NamedTuple):
    """One refusal in words."""

    refusal: Refusal
    title: str
    sentence: str
    advice: str
    mend: Mend | None = None


class Timeline(NamedTuple):
    """The refused calls of one key in the last days."""

    key: Key
    chart: BarChart
    reasons: list[Reason]


@dataclass(frozen=True, slots=True)
class Refusals:
    """Everything on a page of refusals."""

    form: FilterForm
    key: str  # searched for: an id or the last four characters
    keys: list[KeyFacts]
    timeline: Timeline | None  # where one key was searched for
    asked: str  # a request id
    found: Found | None
    row: Row | None  # of `found`
    page: Page[Refusal]
    rows: list[Row]
    filtered: bool
    is_cut: bool  # there are older ones
    days: int  # that they are kept
    complete_through: dt.datetime | None

    @property
    def not_found(self) -> str:
        """What an id without a refusal means: only refused calls are kept one by one."""
        return (
            "No refused call here has this id. Accepted calls are not listed one by one, and refused "
            f"ones for {self.days} days."
        )

    @property
    def query(self) -> str:
        """The filters as an address has them, for the file."""
        chosen = self.form.chosen()
        values = {"key": self.key, "code": chosen["outcome"], "day": chosen["day"]}
        return urlencode({name: str(value) for name, value in values.items() if value})


class _NewestFirst(Paginator):  # type: ignore[type-arg]  # not subscriptable at run time
    """Pages that count no further than the newest, however many there are."""

    def __init__(self, refusals: QuerySet[Refusal]) -> None:
        super().__init__(refusals, PAGE)
        self._newest = refusals[:NEWEST]

    @cached_property
    def count(self) -> int:
        return self._newest.count()


def refusals(organization: Organization | None, query: QueryDict, now: dt.datetime) -> Refusals:
    """One page of an organization's refusals (None: of everybody's), in a fixed number of queries."""
    form = FilterForm(query) if organization else StaffFilterForm(query)
    key, asked = query.get("key", "")[:_CUT], query.get("request", "").strip()[:_CUT]
    everything = _of(organization)
    request = refusal_reports.parse_request(asked)
    found = refusal_reports.look_up(everything, request) if request else None
    keys = keys_of(organization, key)
    page = _NewestFirst(_filtered(everything, keys, key, form)).get_page(query.get("page"))
    return Refusals(
        form=form,
        key=key,
        keys=[_facts(each, now) for each in keys[:MANY]],
        timeline=_timeline(keys[0], now) if len(keys) == 1 else None,
        asked=asked,
        found=found,
        row=row(found.refusal) if found and found.refusal else None,
        page=page,
        rows=[row(refusal) for refusal in page.object_list],
        filtered=bool(key or any(form.chosen().values())),
        is_cut=page.paginator.count >= NEWEST,
        days=settings.USAGE_REFUSAL_DAYS,
        complete_through=reports.complete_through(),
    )


def table(organization: Organization, query: QueryDict) -> Iterator[list[str]]:
    """The list as rows of cells, its header first; the newest rows, as the pages have them."""
    key = query.get("key", "")[:_CUT]
    found = _filtered(_of(organization), keys_of(organization, key), key, FilterForm(query))
    yield list(_COLUMNS)
    for refusal in found[:NEWEST].iterator(chunk_size=1000):
        yield [
            refusal.request_id,
            refusal.at.astimezone(dt.UTC).isoformat(timespec="milliseconds"),
            refusal.outcome,
            refusal.key.public_id if refusal.key else "",
            guarded(refusal.key.name) if refusal.key else "",
            refusal.secret.display if refusal.secret else "",
            guarded(refusal.resource),
            guarded(refusal.address),
            guarded(refusal.user_agent),
            str(refusal.more),
        ]


@sensitive_variables()
def address_of(text: str, organization: Organization | None) -> tuple[str, str]:
    """The query of the page that answers a search, and a sentence if there is none: ("key=…", "")."""
    text = text.strip()
    last_four = text.rpartition("…")[2]
    if refusal_reports.parse_request(text):
        return urlencode({"request": text}), ""
    if _KEY.fullmatch(text) or _LAST_FOUR.fullmatch(last_four):
        return urlencode({"key": last_four}), ""
    secret = oversight.find_by_secret(text, organization)
    if secret is not None:
        return urlencode({"key": secret.key.public_id}), ""
    if tokens.is_well_formed(text):
        return "", f"No key here is this one. {Code.UNKNOWN.advice}"
    if oversight.may_be_secret(text):
        return "", f"No key here is this one, nor can it be one. {Code.MALFORMED.advice}"
    return "", NEITHER


@sensitive_variables()
def holds_secret(query: QueryDict) -> bool:
    """Does the address hold what may be a key? It must not stay there."""
    return any(oversight.may_be_secret(value) for _, values in query.lists() for value in values)


def _of(organization: Organization | None) -> QuerySet[Refusal]:
    if organization is None:
        return refusal_reports.of_everybody()
    return refusal_reports.of_organization(organization)


def keys_of(organization: Organization | None, key: str) -> list[Key]:
    """The keys with this id or these last four characters, revoked and expired ones too."""
    keys = oversight.keys() if organization is None else organization.keys.all()
    if _KEY.fullmatch(key):
        keys = keys.filter(public_id=key)
    elif _LAST_FOUR.fullmatch(key):
        keys = keys.filter(secrets__hint=key).distinct()
    else:
        return []
    return list(keys.select_related("organization").prefetch_related("secrets")[:PAGE])


def _filtered(
    refusals: QuerySet[Refusal], keys: Iterable[Key], key: str, form: FilterForm
) -> QuerySet[Refusal]:
    chosen = form.chosen()
    return refusal_reports.find(refusals, keys=[each.pk for each in keys] if key else None, **chosen)


def row(refusal: Refusal) -> Row:
    code = Code.__members__.get(refusal.outcome)
    if code is None:  # of a later version
        return Row(refusal, refusal.outcome, "", "")
    key, organization = refusal.key, refusal.organization
    mend = mends.of(code, key, organization) if key and organization else None
    return Row(refusal, code.title, code.sentence, code.advice, mend)


def _timeline(key: Key, now: dt.datetime) -> Timeline:
    """From the roll-ups, which know of every call, those of a flood included."""
    end = now.astimezone(dt.UTC).date() + dt.timedelta(days=1)
    start = end - dt.timedelta(days=DAYS)
    days = reports.daily(key.organization, start, end, key=key)
    chart = bar_chart([day.date for day in days], [0] * len(days), [day.refused for day in days])
    midnights = [dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC) for day in (start, end)]
    return Timeline(key, chart, reasons(reports.totals(key.organization, *midnights, key=key).reasons))


def _facts(key: Key, now: dt.datetime) -> KeyFacts:
    found = badge(key, now)
    codes = {
        "revoked": Code.REVOKED,
        "canary": Code.REVOKED,
        "expired": Code.EXPIRED,
        "disabled": Code.DISABLED,
        "suspended": Code.ORGANIZATION_SUSPENDED,
    }
    code = codes.get(found.state)
    return KeyFacts(
        key,
        found,
        code,
        mends.of(code, key, key.organization) if code else None,
        [each for each in key.secrets.all() if not each.works_at(now)],
    )
