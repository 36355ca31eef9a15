"""People in the admin: who they are, which addresses are verified, what staff may do; and organizations with
what they pay for.

Changes to a person are written to the same audit as acts on keys. It never deletes anybody: a person who
leaves is made inactive, and their history keeps its name.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import allauth.account.admin  # noqa: F401  registers what is taken out again below
from allauth.account.models import EmailAddress
from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Exists, Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.html import format_html

import portal.admin_mails  # noqa: F401  registers mails and invitations
from keys import admin as keys_admin
from keys import audit
from keys.admin.base import (
    Cell,
    ReadOnly,
    TabularInline,
    actor,
    change_url,
    link,
    rows_of,
)
from keys.admin.lists import LongLists
from keys.admin.organizations import SHOWN
from keys.audit import Actor
from keys.models import Key, Organization
from portal import revocations, terms
from portal.models import Acceptance, User
from usage.billing import money, subscriptions
from usage.models import BillingAccount

# Whoever may set these may do everything: for superusers alone.
POWERS = ("is_staff", "is_superuser", "groups", "user_permissions")


class UserCreationForm(AdminUserCreationForm):  # type: ignore[type-arg]  # not subscriptable at run time
    class Meta:
        model = User
        fields = ("email",)
        field_classes = {"email": forms.EmailField}

    def clean_email(self) -> str:
        return free_address(self.cleaned_data["email"], None)


class UserForm(UserChangeForm):  # type: ignore[type-arg]  # as above
    class Meta:
        model = User
        fields = "__all__"
        field_classes = {"email": forms.EmailField}

    def clean_email(self) -> str:
        return free_address(self.cleaned_data["email"], self.instance)


def free_address(email: str, person: User | None) -> str:
    """The address in lower case, if nobody else has it."""
    email = email.lower()
    others = User.objects.filter(email__iexact=email) | User.objects.filter(
        emailaddress__email__iexact=email, emailaddress__verified=True
    )
    if person is not None and person.pk is not None:
        others = others.exclude(pk=person.pk)
    if others.exists():
        raise forms.ValidationError("Somebody else has this address.")
    return email


class AcceptanceInline(ReadOnly, TabularInline[Acceptance, User]):
    """Which terms this person accepted, and when."""

    model = Acceptance
    verbose_name_plural = "accepted terms"
    fields = ("at",)  # which version stands above it
    readonly_fields = ("at",)
    extra = 0


class TermsFilter(admin.SimpleListFilter):
    title = "current terms"
    parameter_name = "terms"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("accepted", "Accepted"), ("open", "Not accepted")] if terms.version() else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        accepted = Exists(Acceptance.objects.filter(user=OuterRef("pk"), version=terms.version()))
        match self.value():
            case "accepted":
                return queryset.filter(accepted)
            case "open":
                return queryset.filter(~accepted)
        return queryset


class EmailAddressInline(TabularInline[EmailAddress, User]):
    """Signing in needs a verified address."""

    model = EmailAddress
    fields = ("verified", "primary")  # which address it is stands above them
    readonly_fields = ("primary",)
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class Audited:
    """Saves as Django does, and writes the audit's event where Django would write its log. Never deletes."""

    noun = ""  # the first half of the act's name

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self._append(request, "created", {self.noun: str(obj), "changes": message})

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """`message` is what `construct_change_message` made: facts for the audit."""
        if message:
            self._append(request, "edited", {self.noun: str(obj), "changes": message})

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        """Each changed field's old and new value; of a password, only that it was set."""
        changes: dict[str, Any] = {}
        for name in form.changed_data:
            if "password" in name:
                changes["password"] = [None, "set"]
            else:
                changes[name] = [_plain(form.initial.get(name)), _plain(form.cleaned_data.get(name))]
        for formset in formsets or ():
            for row in formset.forms:
                if row.has_changed():
                    changes[f"verified {row.instance.email}"] = [
                        bool(row.initial.get("verified")),
                        row.instance.verified,
                    ]
        return changes

    def _append(self, request: HttpRequest, done: str, data: dict[str, Any]) -> None:
        with transaction.atomic():
            audit.append(f"{self.noun}.{done}", actor=actor(request), at=timezone.now(), data=data)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(User)
class UserAdmin(LongLists, Audited, DjangoUserAdmin):  # type: ignore[type-arg]  # as above
    noun = "user"
    form = UserForm
    add_form = UserCreationForm
    add_form_template = "admin/change_form.html"
    fieldsets = (
        (None, {"fields": ("email", "password", "first_name", "last_name")}),
        ("Permissions", {"fields": ("is_active", *POWERS)}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "usable_password", "password1", "password2")}),)
    list_display = ("email", "is_active", "is_staff", "date_joined", "terms")
    list_filter = ("is_active", "is_staff", "is_superuser", TermsFilter)
    search_fields = ("email", "first_name", "last_name", "memberships__organization__slug__exact")
    search_help_text = "Email address, name, or an organization's slug."
    ordering = ("email",)
    readonly_fields = ("last_login", "date_joined")

    def get_inlines(self, request: HttpRequest, obj: User | None) -> list[type[Any]]:
        return [] if obj is None else [EmailAddressInline, AcceptanceInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        last = Acceptance.objects.filter(user=OuterRef("pk")).order_by("-at", "-pk").values("version")[:1]
        people: QuerySet[User] = super().get_queryset(request)
        return people.annotate(accepted=Subquery(last)).order_by("email")

    @admin.display(description="terms", empty_value="none")
    def terms(self, obj: User) -> str | None:
        """The version accepted last."""
        accepted: str | None = obj.accepted  # type: ignore[attr-defined]  # annotated above
        return accepted

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        fields = tuple(super().get_readonly_fields(request, obj))
        return fields if getattr(request.user, "is_superuser", False) else (*fields, *POWERS)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Whoever sets the address or password of others of the staff could act as they: superusers alone."""
        is_colleague = obj is not None and obj.pk != request.user.pk and (obj.is_staff or obj.is_superuser)
        if is_colleague and not getattr(request.user, "is_superuser", False):
            return False
        return super().has_change_permission(request, obj)

    # --- saving ---

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if "email" in form.changed_data:  # behind the addresses' own rows, which would bring the old one back
            sign_in_with(form.instance, instead_of=form.initial.get("email", ""))

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The audit's events that have this person's address as actor."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        person = self.get_object(request, unquote(object_id))
        query = "?" + urlencode({"q": person.email}) if person else ""
        return redirect(reverse("admin:keys_auditevent_changelist") + query)


class OrganizationAdmin(keys_admin.OrganizationAdmin):
    """An organization with what it pays for."""

    def get_fieldsets(self, request: HttpRequest, obj: Organization | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        return (
            fieldsets
            if obj is None
            else [
                *fieldsets,
                ("Billing", {"fields": ("plan", "billed_to")}),
                ("Subscriptions", {"fields": ("subscriptions",), "classes": ("collapse",)}),
                ("Credits", {"fields": ("credits",), "classes": ("collapse",)}),
            ]
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Organization | None = None) -> tuple[str, ...]:
        fields = super().get_readonly_fields(request, obj)
        return fields if obj is None else (*fields, "plan", "billed_to", "subscriptions", "credits")

    @admin.display(description="plan")
    def plan(self, obj: Organization) -> str:
        current, later = subscriptions.now_and_next(obj, timezone.now())
        words = []
        if current is not None:
            words.append(f"{current.version} since {current.start:%-d %b %Y}")
            if current.end is not None and later is None:
                words.append(f"until {current.end:%-d %b %Y}")
        else:
            words.append("None")
        if later is not None:
            words.append(f"from {later.start:%-d %b %Y} on {later.version}")
        add = reverse("admin:usage_subscription_add") + f"?organization={obj.pk}"
        every = reverse("admin:usage_subscription_changelist") + f"?organization__id__exact={obj.pk}"
        return format_html(
            '{} · <a href="{}">Change the plan…</a> · <a href="{}">History</a>', ", ".join(words), add, every
        )

    @admin.display(description="billed to")
    def billed_to(self, obj: Organization) -> str:
        account = BillingAccount.objects.filter(organization=obj).first()
        if account is None:
            url = reverse("admin:usage_billingaccount_add") + f"?organization={obj.pk}"
            return format_html('<a href="{}">Say whom to bill</a>', url)
        return link(account, account.name or account.email or account)

    @admin.display(description="newest")
    def subscriptions(self, obj: Organization) -> str:
        """Which plans it has been on."""
        found = obj.subscriptions.select_related("version__plan").order_by("-start", "-id")[:SHOWN]
        rows = [
            (
                Cell(each.version, change_url(each)),
                Cell(date_format(each.start, "j M Y")),
                Cell(date_format(each.end, "j M Y") if each.end else "goes on"),
            )
            for each in found
        ]
        every = reverse("admin:usage_subscription_changelist") + f"?organization__id__exact={obj.pk}"
        return rows_of(("Plan", "From", "Until"), rows, Cell("All subscriptions", every))

    @admin.display(description="newest")
    def credits(self, obj: Organization) -> str:
        """What was taken off its bills."""
        rows = [
            (
                Cell(f"{each.original_period:%Y-%m}", change_url(each)),
                Cell(f"{money.as_text(each.amount, each.currency)} {each.currency}"),
                Cell(each.reason),
            )
            for each in obj.credits.order_by("-original_period", "-id")[:SHOWN]
        ]
        add = reverse("admin:usage_credit_add") + f"?organization={obj.pk}"
        return rows_of(("Month", "Amount", "Reason"), rows, Cell("Give a credit", add))


class KeyAdmin(keys_admin.KeyAdmin):
    """Keys, whose people are told when staff revoke them."""

    revoking_tells = "Their makers and the owners of their organizations get a mail with the reason."

    def revoke_keys(self, who: Actor, keys: list[Key], reason: str) -> list[Key]:
        return revocations.revoke(who, keys, reason=reason, now=timezone.now())


class GroupAdmin(Audited, DjangoGroupAdmin):
    """What a group may do its members may: for superusers alone."""

    noun = "group"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and getattr(request.user, "is_superuser", False)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return super().has_change_permission(request, obj) and getattr(request.user, "is_superuser", False)


def sign_in_with(person: User, *, instead_of: str) -> None:
    """Make the person's address the one to sign in with; they prove it by a code when they do. Whoever has
    the one that it replaces can do so no more."""
    addresses = EmailAddress.objects.filter(user=person)
    addresses.filter(email=instead_of).exclude(email=person.email).delete()
    addresses.exclude(email=person.email).update(primary=False)
    address, _ = EmailAddress.objects.get_or_create(user=person, email=person.email)
    addresses.filter(pk=address.pk).update(primary=True)


def _plain(value: Any) -> Any:
    """A field's value as JSON has it: relations as their names."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return sorted(str(each) for each in value)
    return value if value is None or isinstance(value, bool | int) else str(value)


# Addresses are edited with their person.
admin.site.unregister(EmailAddress)
admin.site.unregister(Group)
admin.site.register(Group, GroupAdmin)
admin.site.unregister(Organization)
admin.site.register(Organization, OrganizationAdmin)
admin.site.unregister(Key)
admin.site.register(Key, KeyAdmin)
