"""The user, a person known by an e-mail address; mails that wait to be sent, and what they told of."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.db import models

from keys.models import Key, Organization


class UserManager(BaseUserManager["User"]):
    """Users are found and made by e-mail address, in lower case."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        if not email:
            raise ValueError("A user needs an e-mail address.")
        user = self.model(email=email.lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=(username or "").lower())


class User(AbstractUser):
    """Django's user without a username."""

    username = None  # type: ignore[assignment]  # AbstractUser declares a field; None removes it
    email = models.EmailField("e-mail address", unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects: ClassVar[UserManager] = UserManager()  # type: ignore[assignment]  # as above

    def __str__(self) -> str:
        return self.email


class Acceptance(models.Model):
    """That a person accepted a version of the terms; `portal.terms` alone adds these."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="acceptances", db_index=False)
    version = models.CharField(max_length=40)
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["user", "version"], name="one_acceptance_each"),
        ]

    def __str__(self) -> str:
        return f"{self.version} by {self.user_id}"


class Mail(models.Model):
    """One mail to one address; `portal.outbox` alone adds, changes and deletes these."""

    once = models.CharField(max_length=200)  # what it is about: nobody gets two for the same
    to = models.EmailField("recipient")
    organization = models.ForeignKey(
        Organization, null=True, on_delete=models.PROTECT, related_name="mails", db_index=False
    )
    subject = models.CharField(max_length=200)
    text = models.TextField()  # empty once it is sent
    about = models.JSONField(default=list, db_default=[])  # for its writer: is what it says still true?
    queued_at = models.DateTimeField()
    next_try_at = models.DateTimeField(null=True)  # None: nothing is left to do
    tries = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    error = models.CharField("last error", max_length=200, blank=True)

    class Meta:
        ordering = ["-queued_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["once", "to"], name="one_mail_each"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["next_try_at"], name="mail_due", condition=~models.Q(next_try_at=None)),
            models.Index(fields=["queued_at"], name="mail_queued"),
        ]

    def __str__(self) -> str:
        return self.subject

    @property
    def state(self) -> str:
        """`sent`, `waiting` or `given up`, for people."""
        if self.sent_at is not None:
            return "sent"
        return "given up" if self.next_try_at is None else "waiting"


class Reminder(models.Model):
    """That people were told of a key's expiry, so many days before; `portal.expiry` alone writes these."""

    key = models.ForeignKey(Key, on_delete=models.PROTECT, related_name="reminders", db_index=False)
    expires_at = models.DateTimeField()  # as it was then: another expiry is told of anew
    days = models.PositiveSmallIntegerField()
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["key", "expires_at", "days"], name="one_reminder_each"),
        ]

    def __str__(self) -> str:
        return f"{self.key_id}, {self.days} days before"
