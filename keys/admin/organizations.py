"""Organizations and their members in the admin: find a customer, suspend one, change its policy or team."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.html import format_html

from keys import effects, lifecycle
from keys.admin.base import (
    EVERYWHERE,
    Autocompletes,
    Cell,
    LifecycleAdmin,
    LifecycleForm,
    ReasonForm,
    TabularInline,
    actor,
    change_url,
    rows_of,
)
from keys.admin.effects import AgreedField, require_agreement
from keys.admin.fields import Autocomplete, OrganizationFilter
from keys.models import Membership, Note, Organization, Policy
from keys.permissions import Role

MEMBERS = 50  # on an organization's page
SHOWN = 10  # rows of each of its other lists


class OrganizationForm(LifecycleForm[Organization]):
    owner = forms.ModelChoiceField(
        get_user_model()._default_manager.all(),
        required=False,
        widget=Autocomplete(Membership._meta.get_field("user"), admin.site),
        help_text="Who manages it from now on; may be left empty and given later.",
    )

    agreed = AgreedField()

    class Meta:
        model = Organization
        fields = ("name", "slug", "policy", "external_customer")

    def clean(self) -> dict[str, Any] | None:
        """Another policy says first what it does to the organization's keys."""
        cleaned = super().clean()
        if self.instance.pk is not None and "policy" in self.changed_data and not self.errors:
            chosen = Organization.objects.filter(pk=self.instance.pk)
            policy = self.cleaned_data["policy"]
            require_agreement(self, effects.of_choice(chosen, policy, timezone.now()))
        return cleaned

    def changes(self) -> dict[str, Any]:
        changed = super().changes()
        changed.pop("agreed", None)
        return changed


class PolicyChoiceForm(forms.Form):
    chosen: ClassVar[QuerySet[Organization]] = Organization.objects.none()
    policy = forms.ModelChoiceField(
        Policy._default_manager.all(), help_text="Keys that exist stay as they are."
    )
    agreed = AgreedField()

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if not self.errors:
            policy = self.cleaned_data["policy"]
            require_agreement(self, effects.of_choice(self.chosen, policy, timezone.now()))
        return cleaned

    @classmethod
    def of(cls, chosen: QuerySet[Organization]) -> type["PolicyChoiceForm"]:
        """The form for these organizations."""
        return type("PolicyChoiceForm", (cls,), {"chosen": Organization.objects.filter(pk__in=chosen)})


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("suspended", "Suspended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("active", "suspended"):
            return queryset.filter(suspended_at__isnull=self.value() == "active")
        return queryset


class MembersInline(TabularInline[Membership, Organization]):
    """Those who are members, of many the first: their role can change."""

    model = Membership
    organization: Organization | None = None
    verbose_name_plural = "members"
    fields = ("role", "created_at")  # who it is stands above them
    readonly_fields = ("created_at",)
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        members = super().get_queryset(request).select_related("user", "organization")
        first = Membership.objects.filter(organization=self.organization).order_by("created_at", "pk")
        return members.filter(pk__in=first.values("pk")[:MEMBERS])

    def get_formset(self, request: HttpRequest, obj: Organization | None = None, **kwargs: Any) -> Any:
        self.organization = obj  # Django asks for the rows afterwards, without saying whose
        return super().get_formset(request, obj, **kwargs)

    def formfield_for_choice_field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """With what the page showed: a role that somebody else changed since is not put back."""
        return super().formfield_for_choice_field(db_field, request, show_hidden_initial=True, **kwargs)

    def has_add_permission(self, request: HttpRequest, obj: Organization | None = None) -> bool:
        return False


class NewMembersInline(Autocompletes, TabularInline[Membership, Organization]):
    """Those who become members."""

    model = Membership
    verbose_name = "new member"
    verbose_name_plural = "new members"
    fields = ("user", "role")
    autocomplete_fields = ("user",)
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).none()


@admin.register(Organization)
class OrganizationAdmin(LifecycleAdmin[Organization]):
    form = OrganizationForm
    list_display = ("name", "slug", "policy", "state", "created_at")
    list_filter = (StateFilter, "policy")
    list_select_related = ("policy",)
    search_fields = ("name", "slug", "external_customer", "memberships__user__email__startswith")
    search_help_text = "Name, slug, billing id or the beginning of a member's email address."
    ordering = ("name", "id")
    actions = ("suspend", "resume", "apply_policy")

    def get_fieldsets(self, request: HttpRequest, obj: Organization | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("name", "slug", "policy", "owner", "external_customer", "agreed")})]
        facts = ("name", "slug", "policy", "agreed", "external_customer", "state", "created_at", "team")
        return [
            (None, {"fields": facts}),
            ("Keys", {"fields": ("keys",), "classes": ("collapse",)}),
            ("Notes", {"fields": ("notes",), "classes": ("collapse",)}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Organization | None = None) -> tuple[str, ...]:
        return () if obj is None else ("slug", "state", "created_at", "team", "keys", "notes")

    def get_inlines(self, request: HttpRequest, obj: Organization | None) -> list[type[Any]]:
        return [] if obj is None else [MembersInline, NewMembersInline]

    @admin.display(description="state", ordering="suspended_at")
    def state(self, obj: Organization) -> str:
        if not obj.suspended:
            return "Active"
        return f"Suspended: {obj.suspended_reason}" if obj.suspended_reason else "Suspended"

    @admin.display(description="members")
    def team(self, obj: Organization) -> str:
        url = reverse("admin:keys_membership_changelist") + f"?organization={obj.slug}"
        return format_html('The first {} are below. <a href="{}">All members</a>', MEMBERS, url)

    @admin.display(description="newest")
    def keys(self, obj: Organization) -> str:
        """The newest keys, and where all of them are."""
        now = timezone.now()
        every = reverse("admin:keys_key_changelist") + f"?organization={obj.slug}"
        add = reverse("admin:keys_key_add") + f"?organization={obj.pk}"
        rows = [
            (
                Cell(key.name, change_url(key)),
                Cell(key.get_environment_display()),
                Cell(key.state_at(now).label),
                Cell(date_format(key.created_at, "j M Y")),
            )
            for key in obj.keys.order_by("-created_at", "-id")[:SHOWN]
        ]
        heads = ("Name", "Environment", "State", "Made")
        return rows_of(heads, rows, Cell("All keys", every), Cell("Add a key", add))

    @admin.display(description="for staff alone")
    def notes(self, obj: Organization) -> str:
        """The newest notes, and where one is written."""
        rows = [
            (Cell(note.text), Cell(note.written_by), Cell(date_format(note.written_at, "j M Y")))
            for note in obj.notes.all()[:SHOWN]
        ]
        every = reverse("admin:keys_note_changelist") + f"?organization={obj.slug}"
        add = reverse("admin:keys_note_add") + f"?organization={obj.pk}"
        return rows_of(("Note", "By", "On"), rows, Cell("Write a note", add), Cell("All notes", every))

    def perform(self, request: HttpRequest, form: Any, obj: Organization, change: bool) -> Organization:
        who, now = actor(request), timezone.now()
        if change:
            changes = form.changes()
            policy = changes.pop("policy", None)
            if changes:
                lifecycle.edit_organization(who, obj, now=now, **changes)
            if policy is not None:
                lifecycle.apply_policy(who, obj, policy, now=now)
            return obj
        data = form.cleaned_data
        made = lifecycle.create_organization(
            who, slug=data["slug"], name=data["name"], owner=data["owner"], policy=data["policy"], now=now
        )
        if data["external_customer"]:
            lifecycle.edit_organization(who, made, external_customer=data["external_customer"], now=now)
        return made

    def perform_inline(self, request: HttpRequest, obj: Organization, formset: Any) -> None:
        """New members first, then new owners: an owner may step down for one who has just come."""
        who, now = actor(request), timezone.now()
        changed = [form for form in formset.forms if form.has_changed()]
        for form in sorted(changed, key=lambda form: form.cleaned_data["role"] != Role.OWNER.value):
            role = form.cleaned_data["role"]
            if form.instance.pk is None:
                lifecycle.add_member(who, obj, form.cleaned_data["user"], role, now=now)
            else:
                lifecycle.change_role(who, form.instance, role, now=now)

    def save_related(self, request: HttpRequest, form: Any, formsets: Iterable[Any], change: bool) -> None:
        # The new members' form stands below the members' on the page.
        super().save_related(request, form, list(formsets)[::-1], change)

    @admin.action(description="Suspend…", permissions=["change"], location=EVERYWHERE)
    def suspend(self, request: HttpRequest, queryset: QuerySet[Organization]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="suspend",
            title="Suspend organizations",
            text="Every key of theirs is refused until they are resumed. Nothing is deleted.",
            button="Suspend",
            form_class=ReasonForm,
            act=lambda organization, data: lifecycle.suspend_organization(
                actor(request), organization, reason=data["reason"], now=timezone.now()
            ),
            done="suspended.",
        )

    @admin.action(description="Resume…", permissions=["change"], location=EVERYWHERE)
    def resume(self, request: HttpRequest, queryset: QuerySet[Organization]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="resume",
            title="Resume organizations",
            text="Their keys work again, those that are neither revoked, expired nor disabled.",
            button="Resume",
            harmless=True,
            act=lambda organization, data: lifecycle.resume_organization(
                actor(request), organization, now=timezone.now()
            ),
            done="resumed.",
        )

    @admin.action(description="Apply a policy…", permissions=["change"], location=EVERYWHERE)
    def apply_policy(self, request: HttpRequest, queryset: QuerySet[Organization]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="apply_policy",
            title="Apply a policy",
            text="New keys, and changes to keys, are held to it from now on.",
            button="Apply",
            form_class=PolicyChoiceForm.of(queryset),
            act=lambda organization, data: lifecycle.apply_policy(
                actor(request), organization, data["policy"], now=timezone.now()
            ),
            done="under the chosen policy.",
        )


class NoteForm(LifecycleForm[Note]):
    """Its fields are the admin's."""


@admin.register(Note)
class NoteAdmin(LifecycleAdmin[Note]):
    """What staff write about customers; what is written stays."""

    form = NoteForm
    list_display = ("text", "organization", "written_by", "written_at")
    list_filter = (OrganizationFilter,)
    list_select_related = ("organization",)
    search_fields = ("organization__name", "organization__slug", "text")
    autocomplete_fields: ClassVar[tuple[str, ...]] = ("organization",)
    ordering = ("-id",)
    actions = None

    def get_fields(self, request: HttpRequest, obj: Note | None = None) -> tuple[str, ...]:
        return ("organization", "text") if obj is None else self.get_readonly_fields(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Note | None = None) -> tuple[str, ...]:
        return () if obj is None else ("organization", "text", "written_by", "written_at")

    def has_change_permission(self, request: HttpRequest, obj: Note | None = None) -> bool:
        return False  # what was written is only seen

    def perform(self, request: HttpRequest, form: Any, obj: Note, change: bool) -> Note:
        data = form.cleaned_data
        return lifecycle.add_note(actor(request), data["organization"], data["text"], now=timezone.now())


class MembershipForm(LifecycleForm[Membership]):
    """Its fields are the admin's."""


@admin.register(Membership)
class MembershipAdmin(LifecycleAdmin[Membership]):
    form = MembershipForm
    fields = ("organization", "user", "role")
    list_display = ("user", "organization", "role", "created_at")
    list_filter = ("role", OrganizationFilter)
    search_fields = ("user__email", "organization__name", "organization__slug")
    search_help_text = "Email address, or an organization's name or slug."
    autocomplete_fields: ClassVar[tuple[str, ...]] = ("organization", "user")
    ordering = ("-id",)
    actions = ("remove",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).select_related("user", "organization")

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> tuple[str, ...]:
        return ("organization", "user") if obj else ()

    def perform(self, request: HttpRequest, form: Any, obj: Membership, change: bool) -> Membership:
        data, now = form.cleaned_data, timezone.now()
        if change:
            return lifecycle.change_role(actor(request), obj, data["role"], now=now)
        return lifecycle.add_member(actor(request), data["organization"], data["user"], data["role"], now=now)

    @admin.action(description="Remove from the organization…", permissions=["change"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Membership]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="remove",
            title="Remove members",
            text="They can no longer see the organization. The keys they made stay.",
            button="Remove",
            act=lambda membership, data: lifecycle.remove_member(
                actor(request), membership, now=timezone.now()
            ),
            done="removed.",
        )
