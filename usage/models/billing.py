"""What is sold and to whom: plans with their versions and prices, subscriptions, whom to bill."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from keys.models import Organization, Policy


class PricingModel(models.TextChoices):
    PER_UNIT = "per_unit", "Per unit"
    PACKAGE = "package", "Per package, a begun one whole"
    GRADUATED = "graduated", "Graduated: each tier's share at its price"
    VOLUME = "volume", "Volume: everything at the price of the tier it reaches"


class Plan(models.Model):
    """Something to subscribe to: a policy, and prices by version."""

    slug = models.SlugField(max_length=50, unique=True)
    name = models.CharField(max_length=100)
    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="plans")
    created_at = models.DateTimeField()
    archived_at = models.DateTimeField(null=True, blank=True)  # nobody new subscribes to it

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name


class PlanVersion(models.Model):
    """What a plan costs. Once published it never changes; another version does."""

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    currency = models.CharField(max_length=3)  # ISO 4217
    fee = models.BigIntegerField(default=0)  # a month's, in the currency's minor unit
    created_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True, blank=True)  # None: a draft

    class Meta:
        ordering = ["plan", "-number"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["plan", "number"], name="one_version_each"),
        ]

    def __str__(self) -> str:
        return f"{self.plan} {self.number}"


class Price(models.Model):
    """A meter's price in one version of a plan, for one resource or for all that have none of their own.

    Quantities are in the meter's smallest unit, prices are of one unit (of one package, for packages).
    """

    version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="prices", db_index=False)
    meter = models.CharField(max_length=50)
    resource = models.CharField(max_length=128, blank=True)
    model = models.CharField(max_length=10, choices=PricingModel, default=PricingModel.PER_UNIT)
    unit_price = models.CharField(max_length=30, blank=True)  # a plain decimal; empty where tiers have theirs
    package = models.BigIntegerField(null=True, blank=True)
    included = models.BigIntegerField(default=0)
    # [{"up_to": quantity or null, "unit_price": "0.002"}]: `up_to` inclusive, the last is open
    tiers = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ["meter", "resource"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["version", "meter", "resource"], name="one_price_each"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["meter", "resource"], name="price_of_resource"),
        ]

    def __str__(self) -> str:
        return f"{self.meter} {self.resource}".rstrip()


class Subscription(models.Model):
    """An organization on a version of a plan in [start, end), full UTC hours. An empty one never was."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="subscriptions", db_index=False
    )
    version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="subscriptions")
    start = models.DateTimeField()
    end = models.DateTimeField(null=True, blank=True)  # None: until further notice
    created_at = models.DateTimeField()
    policy_applied_at = models.DateTimeField(null=True, blank=True)  # the plan's, to the organization

    class Meta:
        ordering = ["organization", "start", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(end=None) | Q(end__gte=F("start")), name="ends_after_start"),
            models.UniqueConstraint(
                fields=["organization"], condition=Q(end=None), name="one_open_subscription"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization", "start"], name="subscription_of_organization"),
            models.Index(fields=["start"], name="subscription_start"),  # which was the first?
        ]

    def __str__(self) -> str:
        return f"{self.organization} on {self.version}"


class BillingDetails(models.Model):
    """Whom to bill, and the organization's id in each billing system that exports are made for."""

    name = models.CharField(max_length=200, blank=True)
    email = models.EmailField(max_length=254, blank=True)
    address = models.CharField(max_length=500, blank=True)
    tax_id = models.CharField("tax id", max_length=50, blank=True)
    stripe_customer = models.CharField(max_length=100, blank=True)
    lago_subscription = models.CharField(max_length=100, blank=True)
    openmeter_subject = models.CharField(max_length=100, blank=True)

    class Meta:
        abstract = True


class BillingAccount(BillingDetails):
    """An organization's, as they are now."""

    organization = models.OneToOneField(
        Organization, on_delete=models.PROTECT, primary_key=True, related_name="billing_account"
    )

    def __str__(self) -> str:
        return f"billing of {self.organization}"


class AlertKind(models.TextChoices):
    AMOUNT = "amount", "An amount"
    BUDGET = "budget", "A share of a budget"
    QUOTA = "quota", "A share of a monthly quota"


class BillingAlert(models.Model):
    """What a customer wants to be told of, once a month: that the month has come to an amount, to a share of
    a budget, or to a share of any of its monthly quotas."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="billing_alerts")
    kind = models.CharField(max_length=10, choices=AlertKind)
    amount = models.BigIntegerField(default=0)  # of AMOUNT, or the whole budget; minor units
    currency = models.CharField(max_length=3, blank=True)  # ISO 4217; empty for QUOTA
    percent = models.PositiveIntegerField(default=0)  # of the budget or quota
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    told_period = models.DateField(null=True)  # the first day of the latest month in which it was told
    told_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["organization", "kind", "amount", "currency", "percent"], name="one_alert_each"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization}: {self.kind}"
