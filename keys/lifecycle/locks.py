"""Rows as they are now, ours until commit; taken in the order organization, key, feed.

`no_key` leaves the row's primary key free for others to refer to: every act's event refers to its
organization and key while it holds the feed, and must not wait there for whoever waits for the feed.
"""

from collections.abc import Iterable

from django.db.models import QuerySet

from keys.models import Key, Organization


def lock_organization(organization: Organization) -> Organization:
    rows: QuerySet[Organization] = Organization.objects.select_for_update(of=("self",), no_key=True)
    return rows.select_related("policy").get(pk=organization.pk)


def lock_key(key: Key) -> Key:
    rows = Key.objects.select_for_update(of=("self",), no_key=True)
    return rows.select_related("organization__policy").get(pk=key.pk)


def lock_keys(keys: Iterable[Key]) -> list[Key]:
    """Several at once, in one order, for a transaction with an act on each: all of them before the first act,
    which takes the feed."""
    rows = Key.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=[key.pk for key in keys])
    return list(rows.select_related("organization__policy").order_by("pk"))
