"""One small builder for each thing a test needs. They go through the same acts as people do.

Everything is made at the real time, so that pages and servers, which look at the clock, find it alive;
a test about time passes `now=NOW` here and to what it calls.
"""

import datetime as dt
import os
from typing import Any

from allauth.account.internal.flows.reauthentication import reauthenticate_by_password
from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from keys import brownouts, lifecycle
from keys.audit import Actor
from keys.lifecycle.organizations import standard_policy
from keys.models import Invitation, Key, Membership, Organization, Scope, ScopeRequest
from keys.permissions import Role
from portal import team
from portal.models import User
from usage import definitions, organization_rollups, trials
from usage.billing import Period, alerts, closing
from usage.models import (
    BillingAlert,
    Meter,
    OrganizationRollup,
    Plan,
    PlanVersion,
    Price,
    Rollup,
    Subscription,
    Trial,
)

NOW = dt.datetime(2026, 6, 15, 12, 0, tzinfo=dt.UTC)
PASSWORD = "correct horse battery staple"


def user(name: str, **fields: Any) -> User:
    """A person with the verified address `<name>@example.com` and the password `PASSWORD`."""
    person = get_user_model().objects.create_user(f"{name}@example.com", PASSWORD, **fields)
    EmailAddress.objects.create(user=person, email=person.email, verified=True, primary=True)
    return person


def staff(name: str = "sam") -> User:
    """One of the provider's people, who may do everything in the admin."""
    return user(name, is_staff=True, is_superuser=True)


def signed_in(client: Client, person: User) -> Client:
    """`client`, signed in as `person` a moment ago, so that nothing asks for the password again.

    Half of all tests begin with it: one new session, where `Client.force_login` makes and replaces two.
    """
    request = HttpRequest()
    request.session = session = SessionStore()
    request.user = person
    login(request, person, settings.AUTHENTICATION_BACKENDS[0])
    reauthenticate_by_password(request)
    session.save()
    assert session.session_key is not None  # now that it is saved
    client.cookies[settings.SESSION_COOKIE_NAME] = session.session_key
    return client


def scope(name: str, description: str = "") -> Scope:
    """The scope of this name, made if there is none yet."""
    return Scope.objects.filter(name=name).first() or lifecycle.create_scope(
        lifecycle.command_actor(), name=name, description=description, now=timezone.now()
    )


def organization(
    slug: str, owner: User | None = None, *, now: dt.datetime | None = None, **fields: Any
) -> Organization:
    """A customer; `fields` go to `lifecycle.create_organization`."""
    return lifecycle.create_organization(
        lifecycle.command_actor(),
        slug=slug,
        name=fields.pop("name", slug.title()),
        owner=owner,
        now=now or timezone.now(),
        **fields,
    )


def member(
    person: User, of: Organization, role: Role = Role.DEVELOPER, *, now: dt.datetime | None = None
) -> Membership:
    """`person`, in the organization with this role."""
    return lifecycle.add_member(lifecycle.command_actor(), of, person, role, now=now or timezone.now())


def invitation(
    to: Organization,
    email: str = "bob@example.com",
    role: Role = Role.DEVELOPER,
    *,
    actor: Actor | None = None,
    now: dt.datetime | None = None,
) -> Invitation:
    """An address asked to join, by the provider unless an actor is given, with its mail."""
    by = actor or lifecycle.command_actor()
    return team.invite(by, to, email=email, role=role, now=now or timezone.now())


def key(
    of: Organization,
    *,
    name: str = "Backend",
    scopes: tuple[str, ...] = (),
    now: dt.datetime | None = None,
    **fields: Any,
) -> lifecycle.Issued:
    """A new key with its plaintext. Scopes that do not exist yet are made."""
    for each in scopes:
        scope(each)
    return lifecycle.create_key(
        lifecycle.command_actor(), of, name=name, scopes=scopes, now=now or timezone.now(), **fields
    )


def in_brownout(slug: str = "acme") -> lifecycle.Issued:
    """A key of this customer's whose first brownout began a little ago."""
    now = timezone.now()
    lifecycle.edit_policy(lifecycle.command_actor(), standard_policy(), brownout_days=1, now=now)
    made = key(organization(slug), now=now - dt.timedelta(days=80))
    end = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    begins = brownouts.to_come(made.key.public_id, made.key.created_at, end, 1, now)[0]
    ends = now + (end - begins) - dt.timedelta(seconds=20)  # brownouts begin with full minutes, no later
    lifecycle.edit_key(lifecycle.command_actor(), made.key, expires_at=ends, now=now)
    return made


def scope_request(of: Organization, scope_name: str = "orders:refund") -> ScopeRequest:
    """A member's wish for a scope that the policy gives by approval, for a new key."""
    of.policy.approval_scopes.add(scope(scope_name))
    return lifecycle.request_scope(
        lifecycle.command_actor(), key(of).key, scope_name, reason="Refunds in the shop", now=timezone.now()
    )


def meter(slug: str, *, unit: str = "", now: dt.datetime | None = None, **fields: Any) -> Meter:
    """A meter that staff have defined; `fields` go to `definitions.create_meter`."""
    return definitions.create_meter(
        lifecycle.command_actor(),
        slug=slug,
        unit=unit or slug.removesuffix("s"),
        title=fields.pop("title", slug.title()),
        now=now or timezone.now(),
        **fields,
    )


def version(slug: str, *, currency: str = "USD", fee: int = 0, **prices: dict[str, Any]) -> PlanVersion:
    """A published version of the plan of this slug, which is made if there is none; each of `prices` is a
    meter's, without a resource."""
    plan = Plan.objects.filter(slug=slug).first() or Plan.objects.create(
        slug=slug, name=slug.title(), policy=standard_policy(), created_at=timezone.now()
    )
    number = plan.versions.count() + 1
    now = timezone.now()
    made = PlanVersion.objects.create(
        plan=plan, number=number, currency=currency, fee=fee, created_at=now, published_at=now
    )
    for meter_name, fields in prices.items():
        Price.objects.create(version=made, meter=meter_name, **fields)
    return made


def subscription(
    of: Organization, to: PlanVersion, start: dt.datetime, end: dt.datetime | None = None
) -> Subscription:
    """The organization on this version in [start, end), whatever the rules for acts say."""
    return Subscription.objects.create(
        organization=of, version=to, start=start, end=end, created_at=timezone.now()
    )


def used(
    of: Key,
    quantity: int = 1,
    hour: dt.datetime = NOW,
    *,
    booked: dt.date | None = None,
    meter: str = "requests",
    resource: str = "",
    outcome: str = "VALID",
) -> Rollup:
    """What the key used in an hour as roll-ups have it, booked to the hour's own month unless said."""
    return rollup(
        organization_id=of.organization_id,
        hour=hour,
        key=of,
        meter=meter,
        resource=resource,
        outcome=outcome,
        booked_period=booked or hour.date().replace(day=1),
        calls=1,
        quantity=quantity,
    )


def rollup(**fields: Any) -> Rollup:
    """A roll-up that was not counted, and what it adds to those without keys."""
    (made,) = counted([Rollup(**fields)])
    return made


def counted(rows: list[Rollup]) -> list[Rollup]:
    """These roll-ups in the database, and what they add to those without keys."""
    made = Rollup.objects.bulk_create(rows)
    organization_rollups.add(
        [
            (
                *(each.organization_id, each.hour, each.key_id, each.meter, each.resource, each.outcome),
                *(each.booked_period, each.calls, each.quantity),
            )
            for each in made
        ]
    )
    return made


def nothing_used() -> None:
    """Forget all roll-ups."""
    Rollup.objects.all().delete()
    OrganizationRollup.objects.all().delete()


def closed_month(of: Organization, key: Key | None = None, *, fee: int = 4900) -> Period:
    """A month that is closed, two before this one, in which the organization had a plan of its own and `key`
    was used 1234 times at 0.01; no month may have been closed before."""
    month = Period.of(timezone.now()).previous.previous
    plan = version(f"closed-{of.slug}", fee=fee, requests={"unit_price": "0.01"})
    subscription(of, plan, month.start, month.end)
    if key is not None:
        used(key, 1234, month.start)
    closing.close(month, lifecycle.command_actor(), now=timezone.now())
    return month


def alert(of: Organization, **fields: Any) -> BillingAlert:
    """A billing alert; without `fields` of another share of a monthly quota each time."""
    now = fields.pop("now", None) or timezone.now()
    share = {"kind": "quota", "percent": of.billing_alerts.count() + 1}
    return alerts.add(lifecycle.command_actor(), of, now=now, **(fields or share))


def trial(of: Key, *, now: dt.datetime | None = None, days: int = 14, **settings: Any) -> Trial:
    """A trial that runs on the key: of `settings`, or of a rate of its own."""
    now = now or timezone.now()
    held = [scope.name for scope in of.scopes.all()]
    as_it_is = {"scopes": held, "networks": of.networks, "rates": of.rates, "quotas": of.quotas}
    tried = as_it_is | (settings or {"rates": ["7/hour"]})
    return trials.start(lifecycle.command_actor(), of, days=days, now=now, **tried)


def reloaded(of: Key) -> Key:
    """The key as the database has it now."""
    return Key.objects.get(pk=of.pk)


def database_url() -> str:
    """This test's database, for a server process that the test starts (transactional tests only)."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    host = connection.settings_dict["OPTIONS"]["host"]
    return f"postgres://postgres@/{name}?host={host}"


def environment(**overrides: str) -> dict[str, str]:
    """The environment for a process that the test starts: this test's database, the portal's settings."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "PYTHONPATH": str(settings.BASE_DIR),
        "DATABASE_URL": database_url(),
        "USAGE_JOURNAL_DIR": str(settings.USAGE_JOURNAL_DIR),
        **overrides,
    }


# --- what a page answers ----------------------------------------------------------------------------


def text(response: Any) -> str:
    """An answer's body."""
    content: bytes = response.content
    return content.decode()


def queries(client: Client, path: str) -> int:
    """How many a page takes once caches and the session are warm."""
    client.get(path)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return len(captured)
