"""What was used in May, and the billing export's text of it."""

import csv
import datetime as dt
import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from keys import lifecycle
from keys.models import Key, Organization
from tests import builders
from usage.billing import Period, accounts

MAY = Period(2026, 5)
IDS = {"stripe_customer": "cus_1", "openmeter_subject": "acme-1", "lago_subscription": "sub_1"}


def addressed(organization: Organization) -> None:
    """Let every billing system know the organization, by `IDS`."""
    accounts.edit_account(lifecycle.command_actor(), organization, now=timezone.now(), **IDS)


def used(key: Key, quantity: int = 1, *, hour: dt.datetime = MAY.start, **fields: Any) -> None:
    """What the key used in May, or in another hour."""
    builders.used(key, quantity, hour, **fields)


def export(*argv: str, period: str = "2026-05") -> str:
    out = io.StringIO()
    call_command(
        "export_billing", "--period", period, "--allow-open", *argv, stdout=out, stderr=io.StringIO()
    )
    return out.getvalue()


def refused(*argv: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        call_command("export_billing", *argv, stdout=io.StringIO(), stderr=io.StringIO())
    assert "\n" not in str(caught.value)
    return caught.value


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))
