"""Plans, versions, subscriptions, billing accounts and credits in the admin: each change one audited act.

A draft is edited as lines of text; a published version is only read, and a new one made from it. It parses
and calls `usage.billing`; it decides nothing.
"""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from keys.admin.base import EVERYWHERE, LifecycleAdmin, LifecycleForm, acting_once, actor
from keys.admin.fields import LinesField
from keys.lifecycle import Invalid, Refused
from keys.management.base import sentence
from keys.once import Once
from usage import meters
from usage.billing import Period, accounts, credits, money, plans, price_text, subscriptions
from usage.billing.preview import Ending, preview, preview_end
from usage.models import BillingAccount, Credit, Plan, PlanVersion, Subscription

ENDINGS_SHOWN = 10  # subscriptions of which the page that cancels them tells what it changes
_CREDIT = "credit"  # the purpose of a form's token


class PlanForm(LifecycleForm[Plan]):
    class Meta:
        model = Plan
        fields = ("slug", "name", "policy")
        help_texts: ClassVar[dict[str, str]] = {
            "policy": "What keys of those who subscribe are held to: scopes, rates, quotas, lifetimes."
        }


@admin.register(Plan)
class PlanAdmin(LifecycleAdmin[Plan]):
    form = PlanForm
    fields = ("slug", "name", "policy")
    list_display = ("name", "slug", "policy", "created_at", "archived_at")
    list_select_related = ("policy",)
    search_fields = ("name", "slug")
    actions = ("archive",)

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        return ("slug", "created_at", "archived_at") if obj else ()

    def get_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        return (*self.fields, "created_at", "archived_at") if obj else self.fields

    def perform(self, request: HttpRequest, form: Any, obj: Plan, change: bool) -> Plan:
        data, now = form.cleaned_data, timezone.now()
        if change:
            return plans.edit_plan(actor(request), obj, name=data["name"], policy=data["policy"], now=now)
        return plans.create_plan(actor(request), now=now, **data)

    @admin.action(description="Archive…", permissions=["change"], location=EVERYWHERE)
    def archive(self, request: HttpRequest, queryset: QuerySet[Plan]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="archive",
            title="Archive plans",
            text="Nobody new subscribes to them. Who has subscribed stays.",
            button="Archive",
            act=lambda plan, data: plans.archive_plan(actor(request), plan, now=timezone.now()),
            done="archived.",
        )


class VersionForm(LifecycleForm[PlanVersion]):
    fee = forms.DecimalField(
        min_value=0, max_digits=15, help_text="A month's, e.g. 49.00; pro rata by the second."
    )
    prices = LinesField(
        help_text="One a line, quantities in units: requests per_unit 0.002 included=1000; tokens "
        "resource=large package 5.00 of=1000; tokens graduated 1000=0.02 5000=0.01 rest=0.005; "
        "tokens volume 1000=0.02 rest=0.01."
    )

    class Meta:
        model = PlanVersion
        fields = ("plan", "currency")
        help_texts: ClassVar[dict[str, str]] = {"currency": "ISO 4217, e.g. EUR."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None and "fee" in self.fields:
            self.initial.update(fee=fee_of(self.instance), prices=prices_of(self.instance))


def fee_of(version: PlanVersion) -> str:
    return money.as_text(version.fee, version.currency)


def prices_of(version: PlanVersion) -> list[str]:
    known = meters.read()
    return [price_text.written(plans.spec_of(price), known) for price in version.prices.all()]


@admin.register(PlanVersion)
class PlanVersionAdmin(LifecycleAdmin[PlanVersion]):
    form = VersionForm
    list_display = ("plan", "number", "currency", "monthly_fee", "created_at", "published_at")
    list_filter = (("published_at", admin.EmptyFieldListFilter), "plan")
    list_select_related = ("plan",)
    ordering = ("plan", "-number")
    actions = ("publish", "copy")

    def get_fields(self, request: HttpRequest, obj: PlanVersion | None = None) -> tuple[str, ...]:
        if obj is None or obj.published_at is None:
            return ("plan", "currency", "fee", "prices")
        return ("plan", "number", "currency", "monthly_fee", "price_list", "published_at")

    def get_readonly_fields(self, request: HttpRequest, obj: PlanVersion | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("plan",) if obj.published_at is None else self.get_fields(request, obj)

    @admin.display(description="fee")
    def monthly_fee(self, version: PlanVersion) -> str:
        return fee_of(version)

    @admin.display(description="prices")
    def price_list(self, version: PlanVersion) -> str:
        return "\n".join(prices_of(version)) or "—"

    def perform(self, request: HttpRequest, form: Any, obj: PlanVersion, change: bool) -> PlanVersion:
        data, who, now = form.cleaned_data, actor(request), timezone.now()
        known = meters.read(archived=False)
        prices = [price_text.parse(line, known) for line in data["prices"]]
        currency = data["currency"]
        fee = money.minor(data["fee"], currency) if currency in money.DIGITS else 0
        if change:
            return plans.edit_draft(who, obj, currency=currency, fee=fee, prices=prices, now=now)
        return plans.draft_version(who, data["plan"], currency=currency, fee=fee, prices=prices, now=now)

    @admin.action(description="Publish…", permissions=["change"], location=EVERYWHERE)
    def publish(self, request: HttpRequest, queryset: QuerySet[PlanVersion]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="publish",
            title="Publish versions",
            text="Organizations can subscribe to them. A published version never changes again.",
            button="Publish",
            act=lambda version, data: plans.publish(actor(request), version, now=timezone.now()),
            done="published.",
        )

    @admin.action(description="New version from this…", permissions=["change"], location=EVERYWHERE)
    def copy(self, request: HttpRequest, queryset: QuerySet[PlanVersion]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="copy",
            title="New version from this",
            text="A draft with the same fee and prices, to be edited and published.",
            button="Make a draft",
            harmless=True,
            act=lambda version, data: plans.copy_version(actor(request), version, now=timezone.now()),
            done="copied into a draft.",
        )


class SubscriptionForm(LifecycleForm[Subscription]):
    at = forms.DateTimeField(
        required=False,
        label="From",
        help_text="A full hour in UTC, e.g. 2026-06-01 00:00; empty: the next one. What it has been on ends "
        "then. What changes is shown before anything does.",
    )

    seen = forms.IntegerField(required=False, min_value=0, max_value=2**63 - 1, widget=forms.HiddenInput)

    class Meta:
        model = Subscription
        fields = ("organization", "version")


class CancelForm(forms.Form):
    """The hour that was shown is the one in which they end, however long the page is looked at."""

    at = forms.DateTimeField(
        required=False, widget=forms.HiddenInput, initial=lambda: subscriptions.next_hour(timezone.now())
    )


def _endings(chosen: list[Subscription]) -> list[tuple[Subscription, Ending | None, str]]:
    """What cancelling each of the first would change, or why it is refused."""
    found: list[tuple[Subscription, Ending | None, str]] = []
    for subscription in chosen[:ENDINGS_SHOWN]:
        try:
            found.append((subscription, preview_end(subscription, now=timezone.now()), ""))
        except Refused as refused:
            found.append((subscription, None, refused.sentence))
    return found


@admin.register(Subscription)
class SubscriptionAdmin(LifecycleAdmin[Subscription]):
    form = SubscriptionForm
    list_display = ("organization", "version", "start", "end")
    list_filter = (("end", admin.EmptyFieldListFilter), "version__plan")
    list_select_related = ("organization", "version__plan")
    search_fields = ("organization__slug", "organization__name")
    autocomplete_fields: ClassVar[tuple[str, ...]] = ("organization",)
    ordering = ("-id",)  # as they were made, by the primary key's index
    actions = ("cancel",)

    def get_fields(self, request: HttpRequest, obj: Subscription | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("organization", "version", "at", "seen")
        return ("organization", "version", "start", "end", "policy_applied_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Subscription | None = None) -> tuple[str, ...]:
        return self.get_fields(request, obj) if obj else ()

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest | None, **kwargs: Any) -> Any:
        if db_field.name == "version":
            sold = PlanVersion._default_manager.filter(
                published_at__isnull=False, plan__archived_at__isnull=True
            )
            kwargs["queryset"] = sold.select_related("plan")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def perform(self, request: HttpRequest, form: Any, obj: Subscription, change: bool) -> Subscription:
        if change:  # nothing of it can be edited
            return obj
        data = form.cleaned_data
        return subscriptions.subscribe(
            actor(request),
            data["organization"],
            data["version"],
            at=data["at"],
            seen=data["seen"],
            now=timezone.now(),
        )

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Nobody is subscribed before what it changes has been shown."""
        if request.method == "POST" and "confirmed" not in request.POST and self.has_add_permission(request):
            form = self.get_form(request)(request.POST)
            if form.is_valid():
                try:
                    return self._confirm(request, form.cleaned_data)
                except Refused as refused:
                    request.META["latchkey.refused"] = refused
        only_save = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, only_save | (extra_context or {}))

    def _confirm(self, request: HttpRequest, data: dict[str, Any]) -> TemplateResponse:
        organization, version = data["organization"], data["version"]
        return TemplateResponse(
            request,
            "admin/usage/subscription/preview.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": f"{organization} on {version}?",
                "button": "Subscribe",
                "organization": organization,
                "version": version,
                "preview": preview(organization, version, at=data["at"], now=timezone.now()),
                "cancel_url": reverse("admin:usage_subscription_changelist"),
            },
        )

    @admin.action(description="Cancel…", permissions=["change"], location=EVERYWHERE)
    def cancel(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="cancel",
            title="Cancel subscriptions",
            text="They end with the next full hour; those that have not begun never do.",
            button="Cancel subscriptions",
            act=lambda subscription, data: subscriptions.cancel(
                actor(request), subscription, at=data["at"], now=timezone.now()
            ),
            done="cancelled.",
            form_class=CancelForm,
            told=_endings,
            template="admin/usage/subscription/cancel.html",
        )


class AccountForm(LifecycleForm[BillingAccount]):
    class Meta:
        model = BillingAccount
        exclude = ()
        help_texts: ClassVar[dict[str, str]] = dict.fromkeys(
            accounts.IDS, "Closed months keep the one that they have, and take this where they have none."
        )


@admin.register(BillingAccount)
class BillingAccountAdmin(LifecycleAdmin[BillingAccount]):
    form = AccountForm
    fields = ("organization", *accounts.FIELDS)
    list_display = ("organization", "name", "email", "tax_id")
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "organization__name", "name", "email")
    autocomplete_fields: ClassVar[tuple[str, ...]] = ("organization",)

    def get_readonly_fields(self, request: HttpRequest, obj: BillingAccount | None = None) -> tuple[str, ...]:
        return ("organization",) if obj else ()

    def perform(self, request: HttpRequest, form: Any, obj: BillingAccount, change: bool) -> BillingAccount:
        fields = {name: form.cleaned_data[name] for name in accounts.FIELDS}
        organization = obj.organization if change else form.cleaned_data["organization"]
        return accounts.edit_account(actor(request), organization, now=timezone.now(), **fields)


class CreditForm(LifecycleForm[Credit]):
    month = forms.CharField(help_text="The month that it is for, e.g. 2026-05.")
    value = forms.DecimalField(
        max_digits=18,
        label="Amount",
        help_text="Taken off the bill, e.g. 12.50; below 0 it is put onto it, to take a credit back.",
    )

    class Meta:
        model = Credit
        fields = ("organization", "currency", "reason")
        help_texts: ClassVar[dict[str, str]] = {
            "currency": "ISO 4217, e.g. EUR; the one in which the month was billed.",
            "reason": "The customer sees it.",
        }


@admin.register(Credit)
class CreditAdmin(LifecycleAdmin[Credit]):
    form = CreditForm
    add_form_template = "admin/once_form.html"
    list_display = ("organization", "month", "statement", "off_the_bill", "reason", "given_at", "given_by")
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "organization__name", "reason")
    ordering = ("-id",)  # as they were given, by the primary key's index
    autocomplete_fields: ClassVar[tuple[str, ...]] = ("organization",)

    def get_fields(self, request: HttpRequest, obj: Credit | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("organization", "month", "value", "currency", "reason")
        return self.list_display

    def get_readonly_fields(self, request: HttpRequest, obj: Credit | None = None) -> tuple[str, ...]:
        return self.get_fields(request, obj) if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Credit | None = None) -> bool:
        return False  # what was given is only seen

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A form that is sent twice gives one credit."""
        once = {"once": Once(request, _CREDIT).token}
        return super().add_view(request, form_url, once | (extra_context or {}))

    @admin.display(ordering="original_period")
    def month(self, credit: Credit) -> str:
        return f"{credit.original_period:%Y-%m}"

    @admin.display(description="on the statement of", ordering="booked_period")
    def statement(self, credit: Credit) -> str:
        return f"{credit.booked_period:%Y-%m}"

    @admin.display(description="amount")
    def off_the_bill(self, credit: Credit) -> str:
        return f"{money.as_text(credit.amount, credit.currency)} {credit.currency}"

    def perform(self, request: HttpRequest, form: Any, obj: Credit, change: bool) -> Credit:
        data = form.cleaned_data
        try:
            month = Period.parse(data["month"])
        except ValueError as error:
            raise Invalid(sentence(str(error)), "month") from None
        with acting_once(request, _CREDIT, "This form has given its credit already") as claim:
            credit = credits.give(
                actor(request),
                data["organization"],
                original=month,
                amount=credits.in_minor(data["value"], data["currency"]),
                currency=data["currency"],
                reason=data["reason"],
                now=timezone.now(),
            )
            claim.result = f"{self.off_the_bill(credit)} to {credit.organization}"
        return credit
