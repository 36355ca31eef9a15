"""Hard quotas: never above the limit and all of it spent, by however many processes."""

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase  # noqa: F401
from pytest_django import Settings

from keys import lifecycle
from keys.directory import Directory
from keys.models import Organization
from keys.verdicts import Code
from tests.builders import key, organization
from usage import ledger, metering
from usage.drain import Drain
from usage.models import QuotaLease, QuotaUse, Rollup

pytestmark = pytest.mark.django_db

ACTOR = lifecycle.command_actor()


@pytest.fixture
def directory(journal_dir: Path) -> Iterator[Directory]:
    """This process's keys, read when the test says so; who asks about quotas waits for the answer itself."""
    found = Directory(process_id="test", lock_dir=journal_dir)
    metering.start(found)
    yield found


def call(plaintext: str, **asked: object) -> metering.Decision:
    return metering.authorize(plaintext, now=time.time(), **asked)  # type: ignore[arg-type]  # passed on


def use(unit: str = "month", *, own: bool = True) -> QuotaUse:
    return (
        QuotaUse.objects.exclude(key_id=0).get(unit=unit)
        if own
        else QuotaUse.objects.get(unit=unit, key_id=0)
    )


def test_exactly_the_limit_is_allowed(directory: Directory) -> None:
    issued = key(organization("acme"), quotas=["5/month"])
    directory.refresh()
    codes = [call(issued.plaintext).code for _ in range(7)]
    assert codes == [Code.VALID] * 5 + [Code.QUOTA_EXCEEDED] * 2
    Drain().once(timezone.now())
    assert use().spent == 5
    lease = QuotaLease.objects.get()
    assert (lease.granted, lease.drained) == (5, 5)
