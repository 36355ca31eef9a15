"""The feed: numbers without gaps, in commit order, chained so that a change shows."""

import threading

import pytest
from django.db import connection, transaction
from django.utils import timezone

from keys import audit, lifecycle
from keys.models import AuditEvent, Feed, Organization
from tests import builders
from tests.builders import NOW


@pytest.mark.django_db
def test_events_are_numbered_from_one_without_gaps_and_the_chain_holds() -> None:
    acme = builders.organization("acme")
    for name in ("a", "b", "c"):
        builders.key(acme, name=name, scopes=("orders:read",))
    numbers = list(AuditEvent.objects.order_by("number").values_list("number", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    assert Feed.objects.get().number == numbers[-1]
    assert list(audit.broken_links()) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        {"data": {"name": "another"}},
        {"actor_label": "mallory"},
        {"act": "key.edited"},
        {"at": NOW},
        {"previous_hash": "0" * 64},
    ],
)
def test_a_changed_event_breaks_the_chain(change: dict[str, object]) -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme)
    builders.key(acme, name="later")
    event = AuditEvent.objects.get(key=issued.key)
    AuditEvent.objects.filter(pk=event.pk).update(**change)
    assert [number for number, _ in audit.broken_links()]


@pytest.mark.django_db
def test_a_removed_last_event_breaks_the_chain() -> None:
    builders.key(builders.organization("acme"))
    AuditEvent.objects.order_by("-number")[0].delete()
    assert list(audit.broken_links()) == [(2, "the feed's head does not match the last event")]


@pytest.mark.django_db(transaction=True)
def test_an_event_outside_a_transaction_is_refused() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        audit.append("key.created", actor=audit.SYSTEM, at=NOW)


@pytest.mark.django_db(transaction=True)
def test_an_act_that_fails_leaves_no_event_and_no_gap() -> None:
    acme = builders.organization("acme")
    before = Feed.objects.get().number
    with transaction.atomic():
        builders.key(acme)
        transaction.set_rollback(True)
    builders.key(acme)
    assert AuditEvent.objects.latest("number").number == before + 1
    assert list(audit.broken_links()) == []


@pytest.mark.django_db(transaction=True)
def test_acts_at_once_are_numbered_one_after_the_other() -> None:
    acme = builders.organization("acme")

    def act(number: int) -> None:
        try:
            lifecycle.create_key(
                lifecycle.command_actor(),
                Organization.objects.get(pk=acme.pk),
                name=f"key {number}",
                now=timezone.now(),
            )
        finally:
            connection.close()

    threads = [threading.Thread(target=act, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert AuditEvent.objects.filter(act="key.created").count() == 12
    assert list(audit.broken_links()) == []
