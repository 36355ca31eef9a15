"""From where each secret is used, and which scopes keys needed."""

from __future__ import annotations

from typing import ClassVar, Final

from django.db import models

from keys.models import Key, Secret
from keys.scopes import MAX_LENGTH as SCOPE_LENGTH

OTHER: Final = "other"  # in the place of an address: all the sources beyond those that are kept apart


class Source(models.Model):
    """An address, or its network, and a user agent from which a secret made accepted calls.

    A secret has a bounded number of them, those seen last; what there was besides is summed under `OTHER`.
    """

    pk = models.CompositePrimaryKey("secret_id", "address", "user_agent")
    secret = models.ForeignKey(
        Secret, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="sources"
    )
    address = models.CharField(max_length=45)  # `2001:db8::/48` for a network; empty: nobody trusted knew it
    user_agent = models.CharField(max_length=256, blank=True)
    calls = models.BigIntegerField(default=0)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()
    browser_at = models.DateTimeField(null=True)  # last with a page named by a browser
    plain_at = models.DateTimeField(null=True)  # last over http without TLS

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["last_seen"], name="source_last_seen")]

    def __str__(self) -> str:
        return f"{self.secret_id} from {self.address or 'an unknown address'}"

    @property
    def is_other(self) -> bool:
        return self.address == OTHER


class ScopeUse(models.Model):
    """When an accepted call of a key last asked for a scope."""

    pk = models.CompositePrimaryKey("key_id", "scope")
    key = models.ForeignKey(
        Key, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="scope_uses"
    )
    scope = models.CharField(max_length=SCOPE_LENGTH)  # by its name, or `traits.UNKNOWN`
    last_needed = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.key_id} {self.scope}"
