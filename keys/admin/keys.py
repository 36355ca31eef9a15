"""Keys in the admin: find one by anything a customer can quote, make one for them, revoke a leak.

A new secret is shown by the answer to the POST that made it, never by a redirect, a message or a later
page; a pasted one leaves the address bar before anything is searched.
"""

from collections import Counter
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import ActionLocation
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import SEARCH_VAR
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.dateformat import format as date_format
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters

from keys import lifecycle, oversight
from keys.admin.base import (
    LifecycleAdmin,
    ReadOnly,
    ReasonForm,
    TabularInline,
    acting_once,
    actor,
    change_url,
    link,
)
from keys.admin.fields import OrganizationFilter
from keys.admin.forms import KeyAddForm, KeyEditForm, RotateForm
from keys.audit import Actor
from keys.lifecycle import Issued, Refused
from keys.models import Key, KeyState, Organization, Secret
from keys.once import Once
from keys.recent import recent_sign_in_required

EVERYWHERE = [ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM]
LONGEST_SEARCH = 100  # characters
ONCE = "admin_key_new"


class KeyStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in KeyState.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Key]) -> QuerySet[Key]:
        if self.value() not in KeyState.values:
            return queryset
        found = Key.objects.in_state(str(self.value()), timezone.now())
        return queryset.filter(pk__in=found.values("pk"))


class SecretsInline(ReadOnly, TabularInline[Secret, Key]):
    """A key's secrets as people recognise them; the digest is not even read."""

    model = Secret
    fields = ("state", "created_at", "created_by", "stops_at")  # which secret it is stands above them
    readonly_fields = fields
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Secret]:
        return super().get_queryset(request).defer("digest").select_related("key", "created_by")

    @admin.display(description="state")
    def state(self, secret: Secret) -> str:
        if secret.key.revoked_at is not None:
            return "Revoked"
        if secret.stops_at is None:
            return "Current"
        return "Overlap" if secret.works_at(timezone.now()) else "Ended"


@admin.register(Key)
class KeyAdmin(LifecycleAdmin[Key]):
    form = KeyEditForm
    add_form_template = "admin/once_form.html"
    list_display = ("name", "secret", "organization_link", "state", "expires", "created")
    list_filter = (KeyStateFilter, "environment", OrganizationFilter)
    search_fields = (
        "name",
        "public_id__exact",
        "secrets__hint__exact",
        "organization__name",
        "organization__slug",
    )
    search_help_text = "Name, id, last four characters, organization, or a whole key: it is not kept."
    ordering = ("-id",)  # as they were made, by the primary key's index
    sortable_by = ("name", "expires", "created")
    filter_horizontal: ClassVar[tuple[str, ...]] = ("scopes",)
    autocomplete_fields: ClassVar[tuple[str, ...]] = ("organization",)
    actions = ("revoke", "disable", "enable", "end_overlap")
    inlines: ClassVar[tuple[type[Any], ...]] = (SecretsInline,)
    revoking_tells = ""  # whom revoking tells, as a sentence

    # --- what is shown ---

    def get_queryset(self, request: HttpRequest) -> QuerySet[Key]:
        current = Secret.objects.filter(stops_at=None).defer("digest")
        return (
            super()
            .get_queryset(request)
            .select_related("organization", "created_by")
            .prefetch_related(Prefetch("secrets", current, to_attr="current_secrets"))
        )

    def get_fieldsets(self, request: HttpRequest, obj: Key | None = None) -> Any:
        allowed = ("Allowed", {"fields": ("scopes", "networks", "rates", "quotas")})
        labels = ("Labels", {"fields": ("metadata",)})
        if obj is None:
            return [
                (None, {"fields": ("organization", "name", "environment")}),
                allowed,
                ("Expiry", {"fields": ("expiry", "expires_at")}),
                labels,
            ]
        identity = ("name", "public_id", "organization_link", "environment", "state")
        made: tuple[str, ...] = ("created_at", "created_by")
        if obj.revoked_at is not None:
            made += ("revoked_at", "revoked_reason")
        return [
            (None, {"fields": identity}),
            allowed,
            ("Expiry", {"fields": ("expires_at",)}),
            labels,
            ("History", {"fields": made}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Key | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        history = ("created_at", "created_by", "revoked_at", "revoked_reason")
        return ("public_id", "organization_link", "environment", "state", *history)

    def get_form(
        self, request: HttpRequest, obj: Key | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is None:
            kwargs["form"] = KeyAddForm
        return super().get_form(request, obj, change, **kwargs)

    def get_inlines(self, request: HttpRequest, obj: Key | None) -> list[type[Any]]:
        return [] if obj is None else list(self.inlines)

    def has_change_permission(self, request: HttpRequest, obj: Key | None = None) -> bool:
        """A revoked key stays as it is."""
        return super().has_change_permission(request, obj) and (obj is None or obj.revoked_at is None)

    @admin.display(description="secret")
    def secret(self, key: Key) -> str:
        return format_html('<span class="nowrap">{}</span>', self._shown(key))

    def _shown(self, key: Key) -> str:
        found: list[Secret] = key.current_secrets  # type: ignore[attr-defined]  # set by get_queryset
        return found[0].display if found else "—"

    @admin.display(description="organization", ordering="organization__name")
    def organization_link(self, key: Key) -> str:
        return link(key.organization)

    @admin.display(description="state")
    def state(self, key: Key) -> str:
        label = str(key.state_at(timezone.now()).label)
        return f"{label} (organization suspended)" if key.organization.suspended else label

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, key: Key) -> str:
        return date_format(key.expires_at, "j M Y") if key.expires_at else "never"

    @admin.display(description="created", ordering="created_at")
    def created(self, key: Key) -> str:
        return date_format(key.created_at, "j M Y")

    def describe(self, key: Key) -> str:
        return f"{key.name} ({key.public_id}) of {key.organization.name}: {self._shown(key)}"

    # --- search ---

    @method_decorator(sensitive_post_parameters())
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list. Its search box posts, so that a pasted key is never part of an address; one that
        comes in an address all the same is answered with a redirect away from it."""
        if request.method == "POST" and SEARCH_VAR in request.POST and not _is_action(request):
            return self._search(request, request.POST[SEARCH_VAR])
        typed = request.GET.get(SEARCH_VAR, "")
        if oversight.may_be_secret(typed) or oversight.find_by_secret(typed) is not None:
            return self._search(request, typed)
        return super().changelist_view(request, extra_context)

    def _search(self, request: HttpRequest, text: str) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        found = oversight.find_by_secret(text)
        if found is not None:
            return redirect(change_url(found.key))
        query = request.GET.copy()
        for name in (SEARCH_VAR, "p", "all", "e"):
            query.pop(name, None)
        if oversight.may_be_secret(text):
            self.message_user(request, "No key here has that secret.", messages.WARNING)
        elif text.strip():
            query[SEARCH_VAR] = text.strip()[:LONGEST_SEARCH]
        return HttpResponseRedirect(f"{request.path}?{query.urlencode()}")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Key], search_term: str
    ) -> tuple[QuerySet[Key], bool]:
        """`lk_live_…9aXc`, as pages show it, is searched by what follows the dots."""
        return super().get_search_results(request, queryset, search_term.rpartition("…")[2])

    # --- making and rotating ---

    @method_decorator(recent_sign_in_required)
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Make a key for a customer, after a recent sign-in."""
        context = {
            "show_save_and_continue": False,
            "show_save_and_add_another": False,
            "once": Once(request, ONCE).token,
        }
        return super().add_view(request, form_url, context | (extra_context or {}))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, str | list[str]]:
        initial = super().get_changeform_initial_data(request)
        return {name: initial[name] for name in initial if name == "organization"}

    def perform(self, request: HttpRequest, form: Any, obj: Key, change: bool) -> Key:
        if change:
            changes = form.changes()
            if "scopes" in changes:
                changes["scopes"] = [scope.name for scope in changes["scopes"]]
            return lifecycle.edit_key(actor(request), obj, now=timezone.now(), **changes)
        data = form.cleaned_data
        with acting_once(request, ONCE, "This form has made its key already") as claim:
            issued = lifecycle.create_key(
                actor(request),
                data["organization"],
                name=data["name"],
                environment=data["environment"],
                scopes=[scope.name for scope in data["scopes"]],
                expires_at=form.chosen_expiry(),
                networks=data["networks"],
                rates=data["rates"],
                quotas=data["quotas"],
                metadata=data["metadata"],
                now=timezone.now(),
            )
            claim.result = issued.key.public_id
        request.META["latchkey.issued"] = issued
        return issued.key

    def response_add(self, request: HttpRequest, obj: Key, post_url_continue: str | None = None) -> Any:
        return self._show_secret(request, request.META.pop("latchkey.issued"), "Key created")

    def _show_secret(self, request: HttpRequest, issued: Issued, title: str) -> HttpResponse:
        response = TemplateResponse(
            request,
            "admin/keys/key/secret.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": title,
                "key": issued.key,
                "key_url": change_url(issued.key),
                "plaintext": issued.plaintext,
            },
        )
        add_never_cache_headers(response)
        return response

    def get_urls(self) -> list[URLPattern]:
        rotate = path(
            "<path:object_id>/rotate/",
            self.admin_site.admin_view(self.rotate_view),
            name="keys_key_rotate",
        )
        return [rotate, *super().get_urls()]

    @method_decorator(recent_sign_in_required)
    def rotate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give a key a new secret; the page that asks also says which secret is replaced."""
        key = self.get_object(request, unquote(object_id))
        if key is None:
            self.message_user(request, "There is no such key.", messages.WARNING)
            return redirect("admin:keys_key_changelist")
        if not self.has_change_permission(request):
            raise PermissionDenied
        current = key.secrets.filter(stops_at=None).defer("digest").first()
        posted = request.method == "POST"
        form = RotateForm(request.POST if posted else None, initial={"current": current and current.pk})
        if posted and form.is_valid():
            try:
                issued = lifecycle.rotate_key(
                    actor(request),
                    key,
                    overlap=form.chosen_overlap(),
                    current=key.secrets.filter(pk=form.cleaned_data["current"]).defer("digest").first(),
                    now=timezone.now(),
                )
            except Refused as refused:
                form.add_error(refused.field if refused.field in form.fields else None, refused.sentence)
            else:
                return self._show_secret(request, issued, "Key rotated")
        return TemplateResponse(
            request,
            "admin/keys/key/rotate.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": "Rotate key",
                "original": key,
                "current": current,
                "button": "Rotate",
                "cancel_url": change_url(key),
                "form": form,
            },
            status=400 if posted else 200,
        )

    # --- actions ---

    @admin.action(description="Revoke…", permissions=["change"], location=EVERYWHERE)
    def revoke(self, request: HttpRequest, queryset: QuerySet[Key]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="revoke",
            title="Revoke keys",
            text="They stop working everywhere within moments, with all their secrets, for good. "
            f"{self.revoking_tells}",
            button="Revoke",
            form_class=ReasonForm,
            act_on_all=lambda keys, data: self.revoke_keys(actor(request), keys, data["reason"]),
            done="revoked.",
            told=_by_organization,
            template="admin/keys/key/revoke.html",
        )

    def revoke_keys(self, who: Actor, keys: list[Key], reason: str) -> list[Key]:
        """Revoke those that are not; returns them. The portal also tells people."""
        working = [key for key in keys if key.revoked_at is None]
        return [lifecycle.revoke_key(who, key, reason=reason, now=timezone.now()) for key in working]

    @admin.action(description="Disable…", permissions=["change"], location=EVERYWHERE)
    def disable(self, request: HttpRequest, queryset: QuerySet[Key]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="disable",
            title="Disable keys",
            text="They are refused until somebody enables them again.",
            button="Disable",
            act=lambda key, data: lifecycle.disable_key(actor(request), key, now=timezone.now()),
            done="disabled.",
        )

    @admin.action(description="Enable…", permissions=["change"], location=EVERYWHERE)
    def enable(self, request: HttpRequest, queryset: QuerySet[Key]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="enable",
            title="Enable keys",
            text="They work again, unless they have expired.",
            button="Enable",
            harmless=True,
            act=lambda key, data: lifecycle.enable_key(actor(request), key, now=timezone.now()),
            done="enabled.",
        )

    @admin.action(description="End the overlap…", permissions=["change"], location=EVERYWHERE)
    def end_overlap(self, request: HttpRequest, queryset: QuerySet[Key]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="end_overlap",
            title="End overlaps",
            text="Secrets that a rotation has replaced stop working now; the current ones go on.",
            button="End overlaps",
            act=lambda key, data: lifecycle.end_overlap(actor(request), key, now=timezone.now()),
            done="left with the current secret alone.",
        )


def _by_organization(keys: list[Key]) -> list[tuple[Organization, int]]:
    """Whose keys are chosen, and how many of each."""
    counted = Counter(key.organization for key in keys)
    return sorted(counted.items(), key=lambda each: (-each[1], each[0].name))


def _is_action(request: HttpRequest) -> bool:
    return "index" in request.POST or ACTION_CHECKBOX_NAME in request.POST
