"""The key list: keys found, and several of them changed at once.

What is to be changed is chosen by check boxes (or is all that match, on whatever page), sent by POST, shown
again with the question, and done key by key. Rows are reached through `request.organization` only.
"""

from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from keys import lifecycle
from keys.access import MemberRequest, member
from keys.forms import KeyFilterForm, LabelForm, RevokeKeyForm
from keys.models import Key
from keys.permissions import Act
from portal import key_list, pages
from usage import reports

NAMED = 10  # keys that stay as they were and are named
MAX_BACK = 2000  # characters of an address


@member(Act.VIEW)
@require_safe
def keys(request: MemberRequest) -> HttpResponse:
    """The organization's keys, searched, filtered and sorted."""
    last_four = key_list.pasted_secret(request.GET.get("q", ""))
    if last_four is not None:
        return _without_secret(request, last_four)
    form = KeyFilterForm(request.GET, key_list.held_scopes(request.organization))
    chosen = form.chosen()
    now = timezone.now()
    found = key_list.find(request.organization, now, **chosen)
    larger = key_list.LARGER_PAGE
    size = larger if request.GET.get("per") == str(larger) else pages.PAGE
    page, rows = pages.key_rows(request.organization, found, request.GET.get("page"), now, size=size)
    filtered = any(value for name, value in chosen.items() if name != "sort")
    context = {
        "form": form,
        "page": page,
        "rows": rows,
        "sizes": [pages.PAGE, larger],
        "filtered": filtered,
        "label": chosen["label"],
        "expiring": 0 if filtered else pages.expiring(request.organization, now),
        "complete_through": reports.complete_through(),
    }
    return render(request, "portal/keys.html", context)


def _without_secret(request: MemberRequest, last_four: str) -> HttpResponse:
    """A secret does not belong into an address, nor into the browser's history of it."""
    url = reverse("keys", args=[request.organization.slug])
    if last_four:
        url += "?" + urlencode({"q": last_four})
        text = (
            "That was a whole key. It is searched for by its last four characters; next time use only those."
        )
    else:
        text = "That looks like a key or part of one. Search by its last four characters only."
    messages.warning(request, text)
    if "HX-Request" in request.headers:  # a new page, so that the typed text goes as well
        return HttpResponse(headers={"HX-Redirect": url})
    return redirect(url)


@member(Act.REVOKE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def keys_revoke(request: MemberRequest) -> HttpResponse:
    """Ask, then end the chosen keys for good."""
    form = RevokeKeyForm(request.POST if "confirmed" in request.POST else None)
    now = timezone.now()

    def revoke(chosen: Sequence[Key]) -> key_list.Done:
        return key_list.revoke(request.actor, chosen, reason=form.cleaned_data["reason"], now=now)

    return _several(request, form, revoke, "Revoked", "portal/keys_revoke.html")


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def keys_label(request: MemberRequest) -> HttpResponse:
    """Ask for a label, then set or remove it on the chosen keys."""
    form = LabelForm(request.POST if "confirmed" in request.POST else None)
    now = timezone.now()

    def label(key: Key) -> None:
        lifecycle.edit_key(request.actor, key, labels=form.labels(), now=now)

    return _several(
        request, form, lambda chosen: key_list.each(chosen, label), "Labelled", "portal/keys_label.html"
    )


def _several(
    request: MemberRequest,
    form: forms.Form,
    act: Callable[[Sequence[Key]], key_list.Done],
    verb: str,
    template: str,
) -> HttpResponse:
    """The question, or once that is answered the act on the chosen keys."""
    here = reverse("keys", args=[request.organization.slug])
    asked = QueryDict(request.POST.get("back", "")[:MAX_BACK])
    back = f"{here}?{asked.urlencode()}" if asked else here
    if "all" in request.POST:
        filters = KeyFilterForm(asked, key_list.held_scopes(request.organization)).chosen()
        chosen, unknown = key_list.matching(request.organization, timezone.now(), **filters), 0
    else:
        chosen, unknown = key_list.chosen(request.organization, request.POST.getlist("key"))
    if len(chosen) + unknown > key_list.MOST:
        most = f"{key_list.MOST:,}"
        messages.error(
            request, f"At most {most} keys can be changed at once; narrow the list, or choose fewer."
        )
        return redirect(back)
    if not chosen:
        messages.info(request, "Choose keys from the list first.")
        return redirect(back)
    if form.is_bound and form.is_valid():
        _tell(request, act(chosen), verb, unknown)
        return redirect(back)
    used = reports.key_last_used(request.organization, [key.pk for key in chosen])
    context = {
        "form": form,
        "chosen": [(key, used.get(key.pk)) for key in chosen],
        "in_use": len(used),
        "back": back,
        "back_query": back.partition("?")[2],
    }
    return render(request, template, context)


def _tell(request: MemberRequest, done: key_list.Done, verb: str, unknown: int) -> None:
    """Say how many were changed, and name each that was not."""
    if done.changed:
        count = len(done.changed)
        messages.success(request, f"{verb} {count:,} key{'' if count == 1 else 's'}.")
    for failure in done.failures[:NAMED]:
        messages.error(request, f"“{failure.key.name}” stays as it was: {failure.sentence}")
    left = len(done.failures[NAMED:]) + unknown
    if left:
        messages.error(request, f"{left} more of what was chosen could not be changed.")
