"""A portal with as many rows as one likes in every table that staff have a list of, on PostgreSQL.

The database makes them itself, in one statement a table: `lifecycle` would take an hour. What they say is
plausible and no more: digests are numbers, and the audit's chain does not hold.
"""

import datetime as dt
import json
from typing import Any

BASE = 1_000  # row `n` of a table has the primary key BASE + n: migrations made the first ones
A_CUSTOMER = 10  # keys, members and other rows of each organization
BY_HAND = 200  # scopes, policies, meters and plans: staff make them, and nobody makes 100,000
DAYS = 400  # over which rows are spread: the default of USAGE_DETAIL_DAYS

_OWN = f"{BASE} + n"  # the row of another table with the same number
_CUSTOMER = f"{BASE} + (n - 1) / {A_CUSTOMER} + 1"
_HAND = f"{BASE} + n %% {BY_HAND} + 1"
_AGO = f"now() - (n::bigint * 7919 %% {DAYS * 24 * 60}) * interval '1 minute'"
_EMAIL = "'person-' || n || '@example.com'"
_SPOOL = "lpad(n::text, 11, '0')"


def fill(first: int, last: int) -> None:
    """Rows `first` to `last`, both included, of every list, a tenth as many customers, and what they have
    to do with each other. The first call makes what staff make by hand too."""
    from django.db import connection

    if first == 1:
        _by_hand()
    _customers((first - 1) // A_CUSTOMER + 1, last // A_CUSTOMER)
    _people(first, last)
    _of_customers(first, last)
    _keys(first, last)
    _history(first, last)
    _journals(first, last)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")  # as a database that has been there for a while is


def rollups(number: int, keys: int) -> None:
    """So many roll-ups, of all keys of some customers in each hour of DAYS; one key in ten is refused."""
    from django.db import connection
    from django.utils import timezone

    from usage import organization_rollups
    from usage.models import Rollup

    hour = f"date_trunc('hour', now() - (n::bigint * {DAYS * 24} / {number}) * interval '1 hour', 'UTC')"
    customers = keys // A_CUSTOMER
    key = f"(n::bigint / {A_CUSTOMER} * 7919 %% {customers} * {A_CUSTOMER} + n %% {A_CUSTOMER})"
    _insert(
        Rollup,
        1,
        number,
        organization=f"{BASE} + {key} / {A_CUSTOMER} + 1",
        hour=hour,
        key=f"{BASE} + {key} + 1",
        meter="'requests'",
        outcome="CASE WHEN n %% 10 = 0 THEN 'RATE_LIMITED' ELSE 'VALID' END",
        booked_period=f"date_trunc('month', {hour}, 'UTC')::date",
        calls="100",
        quantity="CASE WHEN n %% 10 = 0 THEN 0 ELSE 100 END",
    )
    tomorrow = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=1)
    organization_rollups.mend(tomorrow - dt.timedelta(days=DAYS + 2), tomorrow)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")  # as a database that has been there for a while is


def _by_hand() -> None:
    from keys.models import Policy, Scope
    from usage.models import Meter, Plan, PlanVersion

    named = {"id": _OWN, "created_at": _AGO}
    _insert(Scope, 1, BY_HAND, **named, name="'orders' || n || ':read'", description="'Read ' || n")
    _insert(Policy, 1, BY_HAND, **named, slug="'policy-' || n", name="'Policy ' || n")
    _insert(Meter, 1, BY_HAND, **named, slug="'meter-' || n", unit="'piece'", title="'Meter ' || n")
    _insert(Plan, 1, BY_HAND, **named, slug="'plan-' || n", name="'Plan ' || n", policy=_OWN)
    _insert(PlanVersion, 1, BY_HAND, **named, plan=_OWN, number="1", currency="'EUR'", published_at=_AGO)


def _people(first: int, last: int) -> None:
    from allauth.account.models import EmailAddress

    from portal.models import Acceptance, Mail, User

    _insert(User, first, last, id=_OWN, email=_EMAIL, password="'!'", date_joined=_AGO)
    _insert(EmailAddress, first, last, id=_OWN, user=_OWN, email=_EMAIL, verified="true", primary="true")
    _insert(Acceptance, first, last, id=_OWN, user=_OWN, version="'1'", at=_AGO)
    _insert(
        Mail,
        first,
        last,
        id=_OWN,
        once="'mail-' || n",
        to=_EMAIL,
        organization=_CUSTOMER,
        subject="'Key ' || n || ' expires soon'",
        queued_at=_AGO,
        sent_at=f"CASE WHEN n %% 50 > 0 THEN {_AGO} END",
    )


def _customers(first: int, last: int) -> None:
    from keys.models import Organization
    from usage.models import BillingAccount

    names = {"name": "'Customer ' || n"}
    _insert(
        Organization, first, last, id=_OWN, slug="'customer-' || n", **names, policy=_HAND, created_at=_AGO
    )
    _insert(BillingAccount, first, last, organization=_OWN, **names, email=_EMAIL)


def _of_customers(first: int, last: int) -> None:
    """Ten of each customer: of its subscriptions one goes on."""
    from keys.models import Invitation, Membership, Note
    from usage.models import Credit, Subscription

    of = {"id": _OWN, "organization": _CUSTOMER}
    role = "(ARRAY['owner', 'admin', 'developer', 'viewer'])[n %% 4 + 1]"
    _insert(Membership, first, last, **of, user=_OWN, role=role, created_at=_AGO)
    _insert(Note, first, last, **of, text="'Asked for invoice ' || n", written_by=_EMAIL, written_at=_AGO)
    _insert(
        Invitation,
        first,
        last,
        **of,
        public_id="'inv_' || lpad(n::text, 16, '0')",
        email=_EMAIL,
        role=role,
        invited_by_label=_EMAIL,
        created_at=_AGO,
        sent_at=_AGO,
        expires_at=f"{_AGO} + interval '7 days'",
        accepted_at=f"CASE WHEN n %% 2 = 0 THEN {_AGO} + interval '1 hour' END",
    )
    month = f"date_trunc('month', {_AGO}, 'UTC')"
    _insert(
        Subscription,
        first,
        last,
        **of,
        version=_HAND,
        start=f"{month} - interval '1 month'",
        end=f"CASE WHEN n %% {A_CUSTOMER} > 0 THEN {month} END",
        created_at=_AGO,
    )
    _insert(
        Credit,
        first,
        last,
        **of,
        original_period=f"{month}::date",
        booked_period=f"{month}::date",
        amount="n %% 10000",
        currency="'EUR'",
        reason="'Outage ' || n",
        given_at=_AGO,
        given_by="'sam@example.com'",
    )


def _keys(first: int, last: int) -> None:
    """One secret, one leak, one request for a scope, one signal and one trial of each."""
    from keys.models import Key, LeakReport, ScopeRequest, Secret
    from usage.models import SecretUse, Signal, Trial

    _insert(
        Key,
        first,
        last,
        id=_OWN,
        public_id="'key_' || lpad(n::text, 16, '0')",
        organization=_CUSTOMER,
        name="'Backend ' || n",
        environment="CASE WHEN n %% 4 = 0 THEN 'test' ELSE 'live' END",
        expires_at=f"CASE WHEN n %% 3 > 0 THEN {_AGO} + interval '300 days' END",
        revoked_at=f"CASE WHEN n %% 9 = 0 THEN {_AGO} + interval '30 days' END",
        created_at=_AGO,
        created_by=_OWN,
    )
    of = {"id": _OWN, "key": _OWN}
    _insert(
        Secret,
        first,
        last,
        **of,
        digest="sha256(int4send(n))",
        prefix="'lk'",
        hint="right(md5(n::text), 4)",
        created_at=_AGO,
    )
    _insert(SecretUse, first, last, secret=_OWN, calls="9", last_used_at=_AGO, address="'203.0.113.9'")
    place = "'https://example.com/commit/' || n"
    _insert(LeakReport, first, last, **of, secret=_OWN, door="'github'", place=place, reported_at=_AGO)
    _insert(
        ScopeRequest,
        first,
        last,
        **of,
        scope=_HAND,
        reason="'For the shop ' || n",
        state="(ARRAY['approved', 'denied', 'pending'])[n %% 3 + 1]",
        requested_by=_EMAIL,
        requested_at=_AGO,
    )
    _insert(
        Signal,
        first,
        last,
        **of,
        organization=_CUSTOMER,
        kind="(ARRAY['plain', 'idle', 'no_expiry'])[n %% 3 + 1]",
        points="n %% 40 + 1",
        raised_at=_AGO,
        found_at=_AGO,
    )
    _insert(
        Trial,
        first,
        last,
        **of,
        organization=_CUSTOMER,
        changes="""'{"rates": [[], ["7/hour"]]}'""",
        started_at=_AGO,
        started_label=_EMAIL,
        ends_at=f"{_AGO} + interval '400 days'",
        ended_at=f"CASE WHEN n %% 10 > 0 THEN {_AGO} END",
        outcome="CASE WHEN n %% 10 > 0 THEN 'discarded' ELSE '' END",
    )


def _history(first: int, last: int) -> None:
    from keys.models import AuditEvent, Feed

    _insert(
        AuditEvent,
        first,
        last,
        number=_OWN,
        at=f"now() - ({last} - n) * interval '1 minute'",
        act="(ARRAY['key.created', 'key.edited', 'member.invited', 'key.revoked'])[n %% 4 + 1]",
        actor_kind="(ARRAY['user', 'staff', 'key'])[n %% 3 + 1]",
        actor_id="1",
        actor_label=_EMAIL,
        organization=_CUSTOMER,
        key=_OWN,
        hash="md5(n::text)",
    )
    Feed.objects.update_or_create(pk=1, defaults={"number": BASE + last})


def _journals(first: int, last: int) -> None:
    """The newest fifty journals are still written."""
    from usage.models import Finding, Refusal, Spool

    _insert(
        Spool,
        first,
        last,
        id=_SPOOL,
        host="'host-' || n %% 50",
        pid="n",
        started_at=_AGO,
        watermark="now()",
        sequence="n",
        finished_at=f"CASE WHEN n > 50 THEN {_AGO} END",
    )
    _insert(
        Finding,
        first,
        last,
        id=_OWN,
        kind="(ARRAY['torn', 'poison', 'missing'])[n %% 3 + 1]",
        spool=_SPOOL,
        segment="1",
        text="'Torn tail of ' || n || ' bytes'",
        found_at=_AGO,
        seen_at=f"CASE WHEN n %% 10 > 0 THEN {_AGO} END",
    )
    _insert(
        Refusal,
        first,
        last,
        id=_OWN,
        spool=_SPOOL,
        sequence="n",
        at=_AGO,
        organization=_CUSTOMER,
        key=_OWN,
        secret=_OWN,
        outcome="(ARRAY['RATE_LIMITED', 'REVOKED', 'EXPIRED'])[n %% 3 + 1]",
        address="'203.0.113.9'",
    )


def _insert(model: Any, first: int, last: int, **columns: str) -> None:
    """A row for each number `n` of the range: `columns` are SQL over it, by the names of fields; other
    fields have their defaults."""
    from django.db import connection, models

    values: dict[str, str] = {}
    parameters: list[Any] = []
    for field in model._meta.concrete_fields:
        if field.name in columns:
            values[field.column] = columns[field.name]
        elif not (field.null or field.primary_key or field.has_db_default()):
            default = field.get_default()
            values[field.column] = "%s"
            parameters.append(json.dumps(default) if isinstance(field, models.JSONField) else default)
    names = ", ".join(f'"{name}"' for name in values)
    rows = f"SELECT {', '.join(values.values())} FROM generate_series({first}, {last}) n"
    with connection.cursor() as cursor:
        cursor.execute(f'INSERT INTO "{model._meta.db_table}" ({names}) {rows}', parameters)
