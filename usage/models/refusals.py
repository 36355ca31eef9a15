"""Calls that were refused."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from keys.models import Key, Organization, Secret


class Refusal(models.Model):
    """A call that was refused; its request id is `<spool>-<sequence>`.

    Those of a flood are not rows, but counted in `more` of the last row of their key, code and minute.
    Without an organization no key was recognised.
    """

    spool = models.CharField(max_length=16)
    sequence = models.BigIntegerField()
    at = models.DateTimeField()
    organization = models.ForeignKey(
        Organization,
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    key = models.ForeignKey(
        Key, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    secret = models.ForeignKey(
        Secret, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    outcome = models.CharField(max_length=32)  # the verdict's code, as in roll-ups
    resource = models.CharField(max_length=128, blank=True)
    address = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=256, blank=True)
    more = models.BigIntegerField(default=0)  # like it, that have no row

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["spool", "sequence"], name="one_row_per_refusal"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["at"], name="refusal_at"),
            models.Index(fields=["organization", "at"], name="refusal_of_organization"),
            models.Index(fields=["key", "at"], name="refusal_of_key"),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} {self.request_id}"

    @property
    def request_id(self) -> str:
        return f"{self.spool}-{self.sequence}"
