"""The pages that change keys. Each parses, calls lifecycle, answers.

A new secret leaves in exactly one response, rendered by the POST that made it. Rows are reached through
`request.organization` only; a page that also shows usage lives in `portal`.
"""

import datetime as dt
from collections.abc import Callable

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods

from keys import examples, history, lifecycle
from keys.access import MemberRequest, member
from keys.forms import (
    AskForScopeForm,
    CanaryForm,
    EditKeyForm,
    ExtendOverlapForm,
    NewKeyForm,
    RotateKeyForm,
    prefilled,
    tried,
)
from keys.lifecycle import Conflict, Invalid, Issued
from keys.lifecycle.locks import lock_key
from keys.models import Key, Secret
from keys.once import Once, Spent
from keys.permissions import Act
from keys.recent import recent_sign_in_required


@sensitive_variables()
def show_secret(request: MemberRequest, issued: Issued, *, rotated: bool = False) -> HttpResponse:
    """The one page that holds a new secret; `member` marks it no-store."""
    scopes = sorted(issued.key.scopes.values_list("name", flat=True))
    context = {
        "key": issued.key,
        "plaintext": issued.plaintext,
        "example": examples.first_call(issued.plaintext, scopes),
        "rotated": rotated,
    }
    return render(request, "keys/secret.html", context)


@member(Act.CREATE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
@recent_sign_in_required
def key_new(request: MemberRequest) -> HttpResponse:
    """Choose what a new key may do; the POST's own answer shows its secret."""
    now = timezone.now()
    once = Once(request, f"key_new:{request.organization.pk}")
    form = NewKeyForm(
        request.organization,
        now,
        request.POST if request.method == "POST" else None,
        initial=prefilled(request.GET),
    )
    if request.method == "POST" and form.is_valid():
        if not once.posted:
            form.add_error(None, "This page was open for too long. Check what it says and send it again.")
        else:
            try:
                with once.claim() as claim:
                    issued = lifecycle.create_key(
                        request.actor, request.organization, **form.values(), now=now
                    )
                    claim.result = issued.key.public_id
            except Spent as spent:
                key = get_object_or_404(request.organization.keys, public_id=spent.result)
                return render(request, "keys/already_created.html", {"key": key}, status=409)
            except (Invalid, Conflict) as refusal:
                form.refuse(refusal)
            else:
                return show_secret(request, issued)
    return render(
        request,
        "keys/new.html",
        {"form": form, "once": once.token, "address": request.META.get("REMOTE_ADDR", "")},
    )


@member(Act.CREATE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
@recent_sign_in_required
def key_canary(request: MemberRequest) -> HttpResponse:
    """Say where it will be; the POST's own answer shows the canary."""
    once = Once(request, f"key_canary:{request.organization.pk}")
    form = CanaryForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        if not once.posted:
            form.add_error(None, "This page was open for too long. Check what it says and send it again.")
        else:
            try:
                with once.claim() as claim:
                    issued = lifecycle.plant_canary(
                        request.actor, request.organization, **form.cleaned_data, now=timezone.now()
                    )
                    claim.result = issued.key.public_id
            except Spent as spent:
                key = get_object_or_404(request.organization.keys, public_id=spent.result)
                return render(request, "keys/already_created.html", {"key": key}, status=409)
            except (Invalid, Conflict) as refusal:
                form.refuse(refusal)
            else:
                context = {"key": issued.key, "plaintext": issued.plaintext}
                return render(request, "keys/canary_secret.html", context)
    return render(request, "keys/canary.html", {"form": form, "once": once.token})


@member(Act.REVOKE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_take_up(request: MemberRequest, key_id: str) -> HttpResponse:
    """End a canary's alarms. Who comes by GET finds the button."""
    key = _key(request, key_id)
    if request.method == "POST":
        lifecycle.take_up_canary(request.actor, key, now=timezone.now())
        messages.success(request, "Taken up: no more alarms about it.")
    return redirect("key", request.organization.slug, key.public_id)


def _key(request: MemberRequest, key_id: str) -> Key:
    """The organization's key of this public id, or 404."""
    keys = request.organization.keys.select_related("organization__policy")
    return get_object_or_404(keys, public_id=key_id)


def _running(key: Key, now: dt.datetime) -> list[Secret]:
    """The secrets that a rotation has replaced and that still work."""
    return list(key.secrets.filter(stops_at__gt=now).select_related("key"))


def _current(key: Key) -> Secret:
    return key.secrets.select_related("key").get(stops_at=None)


def _seen(request: MemberRequest) -> int | None:
    """The number of the secret that the reader's page took for the current one."""
    number = request.POST.get("current", "")
    return int(number) if number.isascii() and number.isdigit() and len(number) <= 18 else None


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_edit(request: MemberRequest, key_id: str) -> HttpResponse:
    """Change a key's name, scopes, expiry, networks, rates or metadata."""
    now = timezone.now()
    key = _key(request, key_id)
    if key.revoked_at is not None:
        messages.error(request, "A revoked key cannot be edited.")
        return redirect("key", request.organization.slug, key.public_id)
    limits = tried(request.GET)
    form = EditKeyForm(key, now, request.POST if request.method == "POST" else None, initial=limits)
    # A page with an error of the form still saw what it saw.
    seen = request.POST.get("seen", "") if request.method == "POST" else history.latest_edit(key)
    if request.method == "POST" and form.is_valid():
        try:
            with transaction.atomic():
                lock_key(key)  # of two who save at once, one reads here of the other
                latest = history.latest_edit(key)
                if seen != latest:
                    seen = latest
                    raise Conflict(
                        "Someone edited this key meanwhile: see its history. Saving again overwrites it."
                    )
                lifecycle.edit_key(request.actor, key, **form.values(), now=now)
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, "Saved.")
            return redirect("key", request.organization.slug, key.public_id)
    context = {
        "key": key,
        "form": form,
        "seen": seen,
        "address": request.META.get("REMOTE_ADDR", ""),
        "tried": bool(limits),
    }
    return render(request, "keys/edit.html", context)


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_ask(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask for a scope that the provider approves key by key."""
    key = _key(request, key_id)
    form = AskForScopeForm(key, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        scope, reason = form.cleaned_data["scope"], form.cleaned_data["reason"]
        try:
            lifecycle.request_scope(request.actor, key, scope, reason=reason, now=timezone.now())
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, f"Asked for {scope}. The key gets it when the provider approves.")
            return redirect("key", request.organization.slug, key.public_id)
    return render(request, "keys/ask.html", {"key": key, "form": form})


@member(Act.ROTATE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
@recent_sign_in_required
def key_rotate(request: MemberRequest, key_id: str) -> HttpResponse:
    """Replace a key's secret; the POST's own answer shows the new one."""
    now = timezone.now()
    key = _key(request, key_id)
    if key.revoked_at is not None:
        messages.error(request, "A revoked key cannot be rotated; create a new one.")
        return redirect("key", request.organization.slug, key.public_id)
    form = RotateKeyForm(key, now, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            issued = lifecycle.rotate_key(request.actor, key, **form.values(), now=now)
        except Invalid as refusal:
            form.refuse(refusal)
        except Conflict as refusal:
            context = {"key": key, "sentence": refusal.sentence, "running": _running(key, now)}
            return render(request, "keys/rotate_conflict.html", context, status=409)
        else:
            return show_secret(request, issued, rotated=True)
    return render(request, "keys/rotate.html", {"key": key, "form": form, "running": _running(key, now)})


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_disable(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask, then refuse the key's calls until it is enabled again."""
    key = _key(request, key_id)
    if request.method != "POST":
        return render(request, "keys/disable.html", {"key": key})
    said = "Disabled. Calls with this key are refused until you enable it again."
    return _switch(request, key, lifecycle.disable_key, said)


@member(Act.EDIT_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_enable(request: MemberRequest, key_id: str) -> HttpResponse:
    """Let a disabled key call again. Who comes by GET, e.g. from signing in again, finds the button."""
    key = _key(request, key_id)
    if request.method != "POST":
        return redirect("key", request.organization.slug, key.public_id)
    said = "Enabled. Calls with this key are accepted again."
    return _switch(request, key, lifecycle.enable_key, said)


def _switch(request: MemberRequest, key: Key, act: Callable[..., Key], said: str) -> HttpResponse:
    try:
        act(request.actor, key, now=timezone.now())
    except Conflict as refusal:
        messages.error(request, refusal.sentence)
    else:
        messages.success(request, said)
    return redirect("key", request.organization.slug, key.public_id)


@member(Act.ROTATE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_end_overlap(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask, then stop the secrets that a rotation has replaced."""
    key = _key(request, key_id)
    now = timezone.now()
    if request.method != "POST":
        context = {"key": key, "running": _running(key, now), "current": _current(key)}
        return render(request, "keys/end_overlap.html", context)
    try:
        lifecycle.end_overlap(request.actor, key, seen=_seen(request), now=now)
    except Conflict as refusal:
        messages.error(request, refusal.sentence)
    else:
        messages.success(request, "The old secret no longer works.")
    return redirect("key", request.organization.slug, key.public_id)


@member(Act.ROTATE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_extend_overlap(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask for how long, then let the old secret work longer."""
    key = _key(request, key_id)
    now = timezone.now()
    running = _running(key, now)
    if not running:
        return _no_overlap(request, key)
    stops_at = max(secret.stops_at or now for secret in running)
    form = ExtendOverlapForm(stops_at, now, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            lifecycle.extend_overlap(
                request.actor, key, overlap=form.overlap_from_now(), seen=_seen(request), now=now
            )
        except (Invalid, Conflict) as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, "The old secret works longer.")
            return redirect("key", request.organization.slug, key.public_id)
    context = {
        "key": key,
        "form": form,
        "old": running[0],
        "stops_at": stops_at,
        "current": _current(key),
    }
    return render(request, "keys/extend_overlap.html", context)


@member(Act.ROTATE_KEY)
@require_http_methods(["GET", "HEAD", "POST"])
def key_roll_back(request: MemberRequest, key_id: str) -> HttpResponse:
    """Ask, then make the old secret the current one again and end the new one."""
    key = _key(request, key_id)
    now = timezone.now()
    running = _running(key, now)
    if not running:
        return _no_overlap(request, key)
    if request.method != "POST":
        context = {"key": key, "old": running[0], "current": _current(key)}
        return render(request, "keys/roll_back.html", context)
    try:
        lifecycle.roll_back_rotation(request.actor, key, seen=_seen(request), now=now)
    except Conflict as refusal:
        messages.error(request, refusal.sentence)
    else:
        messages.success(request, f"Rolled back: {running[0].display} is the current secret again.")
    return redirect("key", request.organization.slug, key.public_id)


def _no_overlap(request: MemberRequest, key: Key) -> HttpResponse:
    """To the key: whoever was here first, or the time, has ended the overlap."""
    messages.info(request, "No old secret of this key is working any more.")
    return redirect("key", request.organization.slug, key.public_id)
