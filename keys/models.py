"""Who may call: organizations and their members, scopes, policies, keys and their secrets, the feed.

Rows change only through `keys.lifecycle`; the querysets here read. A key is an identity and a secret is
what is presented, so usage, limits and history survive a rotation.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from keys import tokens
from keys.permissions import Role
from keys.scopes import MAX_LENGTH as SCOPE_LENGTH


class Environment(models.TextChoices):
    LIVE = "live", "Live"
    TEST = "test", "Test"


class RoleChoice(models.TextChoices):
    """`permissions.Role` as form and column choices."""

    OWNER = Role.OWNER.value, "Owner"
    ADMIN = Role.ADMIN.value, "Admin"
    DEVELOPER = Role.DEVELOPER.value, "Developer"
    BILLING = Role.BILLING.value, "Billing"
    VIEWER = Role.VIEWER.value, "Viewer"


class Scope(models.Model):
    """Something a key may be allowed to do, e.g. `orders:read`."""

    name = models.CharField(max_length=SCOPE_LENGTH, unique=True)
    description = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Policy(models.Model):
    """What an organization's keys must keep to. `lifecycle` enforces it at every door."""

    slug = models.SlugField(max_length=50, unique=True)
    name = models.CharField(max_length=100)
    all_scopes = models.BooleanField(
        default=True,
        help_text="Keys may hold every scope but the portal's staff-only ones; else those chosen below.",
    )
    scopes = models.ManyToManyField(Scope, blank=True, related_name="policies")
    approval_scopes = models.ManyToManyField(
        Scope,
        blank=True,
        related_name="approving_policies",
        help_text="Scopes that a key gets only when staff approve a request, whatever is chosen above.",
    )
    default_lifetime_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Days until a new key expires; empty: the portal's default.",
    )
    max_lifetime_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="Longest life in days; empty: no limit of this policy."
    )
    expiry_required = models.BooleanField(default=False, help_text="No key without an expiry.")
    networks_required = models.BooleanField(default=False, help_text="Live keys must be limited to networks.")
    idle_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Days without a call until a key is retired (disabled), announced on its page before; "
        "empty: never.",
    )
    rotate_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Days until a secret is due for rotation. It goes on working: an old one is a signal, no "
        "refusal; empty: never.",
    )
    brownout_days = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="Days before its expiry (at most 30) from which a key is refused a few times for two"
        " minutes, announced before, so that nobody misses the end; empty: never.",
    )
    max_keys = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Largest number of keys that are not revoked; empty: no limit.",
    )
    rates = models.JSONField(
        default=list,
        blank=True,
        help_text='Windows per organization, e.g. ["10/second", "1000/hour"].',
    )
    quotas = models.JSONField(
        default=list, blank=True, help_text='Hard quotas per organization, e.g. ["100000/month"].'
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.name


class Organization(models.Model):
    """A customer. Its slug never changes; nothing of it is ever deleted."""

    slug = models.SlugField(max_length=50, unique=True)
    name = models.CharField(max_length=100)
    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="organizations")
    external_customer = models.CharField(
        max_length=100, blank=True, help_text="This customer's id in the billing system."
    )
    suspended_at = models.DateTimeField(null=True, blank=True, editable=False)
    suspended_reason = models.CharField(max_length=200, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    members: models.ManyToManyField[models.Model, models.Model] = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="organizations"
    )

    class Meta:
        ordering = ["name", "id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["name", "id"], name="organization_by_name"),
        ]
        permissions = (("visit_organization", "Can see an organization's pages as its members do"),)

    def __str__(self) -> str:
        return self.name

    @property
    def suspended(self) -> bool:
        return self.suspended_at is not None


class Note(models.Model):
    """What staff write down about a customer, for staff alone. `lifecycle` alone writes these."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="notes", db_index=False
    )
    text = models.TextField(max_length=2000)
    written_by = models.CharField(max_length=254)
    written_at = models.DateTimeField()

    class Meta:
        ordering = ["-written_at", "-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization", "-written_at", "-id"], name="note_of_organization"),
        ]

    def __str__(self) -> str:
        return f"{self.organization}: {self.text[:60]}"


class Membership(models.Model):
    """A person's role in one organization."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=20, choices=RoleChoice, default=RoleChoice.DEVELOPER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["organization", "user"], name="one_membership_each"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization} as {self.role}"


def _new_invitation_id() -> str:
    return tokens.new_id("inv")


class Invitation(models.Model):
    """An address is asked to join. Whoever has confirmed it as theirs may accept, once, in time.

    The id is in a mail's link and opens a page; it is no secret, because it lets nobody in by itself.
    """

    public_id = models.CharField("id", max_length=32, unique=True, default=_new_invitation_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="invitations")
    email = models.EmailField()  # in lower case
    role = models.CharField(max_length=20, choices=RoleChoice)
    # Who sent it last: what they may not do any more, it cannot do for them.
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    invited_by_label = models.CharField(max_length=254)
    by_provider = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-sent_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["organization", "email"],
                condition=Q(accepted_at=None, withdrawn_at=None),
                name="one_open_invitation_each",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.email} to {self.organization} as {self.role}"

    def is_open_at(self, now: dt.datetime) -> bool:
        """Can it be accepted at `now`?"""
        return self.state_at(now) == "open"

    def state_at(self, now: dt.datetime) -> str:
        """`accepted`, `withdrawn`, `expired` or `open`, for people."""
        if self.accepted_at is not None:
            return "accepted"
        if self.withdrawn_at is not None:
            return "withdrawn"
        return "open" if now < self.expires_at else "expired"


def _new_key_id() -> str:
    return tokens.new_id("key")


class KeyState(models.TextChoices):
    """A key's state at a moment, for people; `verification` decides the same from the same columns."""

    ACTIVE = "active", "Active"
    EXPIRING = "expiring", "Expiring"
    EXPIRED = "expired", "Expired"
    DISABLED = "disabled", "Disabled"
    REVOKED = "revoked", "Revoked"


EXPIRING_WITHIN = dt.timedelta(days=30)
MANY = 100  # keys


class KeyQuerySet(models.QuerySet["Key"]):
    def in_state(self, state: str, now: dt.datetime) -> KeyQuerySet:
        """Keys whose `state_at(now)` is `state`; `active` includes those about to expire."""
        unrevoked = self.filter(revoked_at=None)
        live = unrevoked.filter(Q(expires_at=None) | Q(expires_at__gt=now), disabled_at__isnull=True)
        match state:
            case KeyState.REVOKED:
                return self.exclude(revoked_at=None)
            case KeyState.EXPIRED:
                return unrevoked.filter(expires_at__lte=now)
            case KeyState.DISABLED:
                return unrevoked.filter(Q(expires_at=None) | Q(expires_at__gt=now), disabled_at__isnull=False)
            case KeyState.EXPIRING:
                return live.filter(expires_at__lte=now + EXPIRING_WITHIN)
            case KeyState.ACTIVE:
                return live
        return self.none()

    def at_least(self, pks: Collection[int]) -> KeyQuerySet:
        """The keys here with these primary keys, perhaps among others: of many, all are found sooner than
        each by its number, and a database takes only so many parameters."""
        return self if len(pks) > MANY else self.filter(pk__in=pks)

    def retiring(self) -> KeyQuerySet:
        """Keys whose retirement for want of use is announced and has not come, the soonest first."""
        announced = self.filter(retires_at__isnull=False, disabled_at=None, revoked_at=None)
        return announced.order_by("retires_at", "pk")


class Key(models.Model):
    """An identity that calls. Its organization and environment never change."""

    public_id = models.CharField("id", max_length=32, unique=True, default=_new_key_id, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="keys", db_index=False
    )  # an index below begins with it
    environment = models.CharField(max_length=4, choices=Environment, default=Environment.LIVE)
    name = models.CharField(max_length=100)
    scopes = models.ManyToManyField(Scope, blank=True, related_name="keys")
    networks = models.JSONField(default=list, blank=True)  # canonical CIDR; empty: anywhere
    rates = models.JSONField(default=list, blank=True)  # e.g. ["10/second"]; beside the policy's
    quotas = models.JSONField(default=list, db_default=[], blank=True)  # e.g. ["100000/month"]; likewise
    metadata = models.JSONField(default=dict, blank=True)  # text → text, the customer's own
    expires_at = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    # When the policy's `idle_days` retire it unless it is used before; of a retired key, when they did.
    retires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_reason = models.CharField(max_length=200, blank=True)
    # Planted where nobody should look: revoked from the first, and any use of it is an alarm.
    canary = models.BooleanField(default=False, db_default=False, editable=False)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    objects = KeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization", "-created_at", "-id"], name="key_of_organization"),
            models.Index(fields=["expires_at"], name="key_expiring", condition=Q(revoked_at=None)),
            models.Index(fields=["organization"], name="key_canary", condition=Q(canary=True)),
            models.Index(fields=["retires_at"], name="key_retiring", condition=Q(retires_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"

    @property
    def is_retired(self) -> bool:
        """Was it disabled because nobody used it?"""
        return self.retires_at is not None and self.disabled_at is not None

    def state_at(self, now: dt.datetime) -> KeyState:
        """The key's own state at `now`; a suspended organization is the organization's."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyState.EXPIRED
        if self.disabled_at is not None:
            return KeyState.DISABLED
        if self.expires_at is not None and self.expires_at <= now + EXPIRING_WITHIN:
            return KeyState.EXPIRING
        return KeyState.ACTIVE


class Secret(models.Model):
    """What is presented for a key: a digest, when it was made, when it stops."""

    key = models.ForeignKey(Key, on_delete=models.PROTECT, related_name="secrets")
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    prefix = models.CharField(max_length=16, blank=True)  # empty: imported, in a foreign format
    hint = models.CharField(max_length=4, blank=True)  # the last characters of the random part
    imported = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    # The end of the overlap after a rotation; None while this is the key's current secret.
    stops_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["key"], condition=Q(stops_at=None), name="one_current_secret"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["hint"], name="secret_by_last_four"),
        ]

    def __str__(self) -> str:
        return self.display

    @property
    def display(self) -> str:
        """How people recognise it: `lk_live_…9aXc`; for an imported one, its hint if it has one."""
        if not self.prefix:
            return f"imported …{self.hint}" if self.hint else "imported"
        return f"{self.prefix}_{self.key.environment}_…{self.hint}"

    def works_at(self, now: dt.datetime) -> bool:
        """Has rotation not ended this secret by `now`? The key's own state is apart from that."""
        return self.stops_at is None or now < self.stops_at


class RequestState(models.TextChoices):
    PENDING = "pending", "Waiting"
    APPROVED = "approved", "Approved"
    DENIED = "denied", "Denied"


class ScopeRequest(models.Model):
    """A member asked for a scope that its policy gives only by approval. `lifecycle` alone writes these."""

    key = models.ForeignKey(Key, on_delete=models.PROTECT, related_name="scope_requests")
    scope = models.ForeignKey(Scope, on_delete=models.PROTECT, related_name="requests")
    reason = models.CharField(max_length=200)
    state = models.CharField(max_length=8, choices=RequestState, default=RequestState.PENDING)
    requested_by = models.CharField(max_length=254)
    requested_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)
    note = models.CharField(max_length=200, blank=True)  # staff's, which the customer reads

    class Meta:
        ordering = ["-requested_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["key", "scope"], condition=Q(state="pending"), name="one_pending_request_each"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["state", "-requested_at"], name="scope_request_in_state"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} for {self.key}"


class Visit(models.Model):
    """One of the provider's staff looks at an organization's pages. `lifecycle` alone writes these."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="visits")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    reason = models.CharField(max_length=200)  # the customer reads it
    began_at = models.DateTimeField()
    ends_at = models.DateTimeField()  # at the latest
    ended_at = models.DateTimeField(null=True)  # written down: by leaving, or afterwards by a worker

    class Meta:
        ordering = ["-began_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["user"], condition=Q(ended_at=None), name="one_visit_at_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["ends_at"], name="visit_open", condition=Q(ended_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.user} at {self.organization}"

    def is_over(self, now: dt.datetime) -> bool:
        return self.ended_at is not None or self.ends_at <= now


class LeakDoor(models.TextChoices):
    """By what door the portal heard of a leak."""

    GITHUB = "github", "GitHub secret scanning"
    PAGE = "page", "The leak page"
    HOLDER = "holder", "Somebody who has the key"
    CANARY = "canary", "Use of a canary"


class LeakResponse(models.TextChoices):
    """What is done about a leaked key that still worked."""

    REVOKE = "revoke", "Key revoked"
    DISABLE = "disable", "Key disabled"
    NOTIFY = "notify", "Owners told"
    NOTHING = "", "None: it no longer worked"


class LeakReport(models.Model):
    """A secret of ours was seen where it should not be. `lifecycle.report_leak` alone writes these."""

    key = models.ForeignKey(Key, on_delete=models.PROTECT, related_name="leaks", db_index=False)
    secret = models.ForeignKey(Secret, on_delete=models.PROTECT, related_name="leaks", db_index=False)
    door = models.CharField(max_length=10, choices=LeakDoor)
    place = models.CharField(max_length=500, blank=True)  # usually an address; as it was told, never checked
    source = models.CharField(max_length=40, blank=True)  # GitHub's kind of place: content, commit, …
    response = models.CharField(max_length=10, blank=True, choices=LeakResponse)
    reported_at = models.DateTimeField()

    class Meta:
        ordering = ["-reported_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["secret", "door", "place", "source"], name="one_leak_report_each"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["key", "-reported_at"], name="leak_of_key"),
            models.Index(fields=["-reported_at", "-id"], name="leak_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.secret_id} by {self.door} at {self.reported_at:%Y-%m-%d %H:%M}"


class Feed(models.Model):
    """The one row that numbers audit events in commit order, and the head of their hash chain."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    number = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64, blank=True)

    class Meta:
        verbose_name_plural = "feed"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(id=1), name="only_one_feed"),
        ]

    def __str__(self) -> str:
        return f"feed at {self.number}"


class AuditEvent(models.Model):
    """One act, numbered and chained by `keys.audit`; never changed, never deleted."""

    number = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField()
    act = models.CharField(max_length=40)
    actor_kind = models.CharField(max_length=10)
    actor_id = models.BigIntegerField(null=True)
    actor_label = models.CharField(max_length=254)
    organization = models.ForeignKey(
        Organization, null=True, on_delete=models.PROTECT, related_name="events", db_index=False
    )
    key = models.ForeignKey(Key, null=True, on_delete=models.PROTECT, related_name="events", db_index=False)
    data = models.JSONField(default=dict)
    previous_hash = models.CharField(max_length=64, blank=True)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["-number"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization", "-number"], name="event_of_organization"),
            models.Index(fields=["key", "-number"], name="event_of_key"),
            models.Index(fields=["at"], name="event_at"),  # the admin's date hierarchy
        ]

    def __str__(self) -> str:
        return f"#{self.number} {self.act}"


class Process(models.Model):
    """A process that answers from memory: what it has seen, and until when it may rely on it."""

    id = models.CharField(max_length=16, primary_key=True)
    host = models.CharField(max_length=100)
    pid = models.PositiveIntegerField()
    lock_path = models.CharField(max_length=500)  # flocked while the process lives
    started_at = models.DateTimeField()
    feed_number = models.BigIntegerField()
    serves_until = models.DateTimeField()  # by the database's clock

    class Meta:
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}"
