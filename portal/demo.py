"""The demo that `quickstart` seeds: a mapping company, its people, its keys and a month of their usage.

Everything is made through `keys.lifecycle`, act by act in the order of time, so that history and audit look
as they do in life. It seeds only an empty database, in one transaction, and finds its own things again by a
mark on its key; what others made it never touches.
"""

import datetime as dt
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction

from keys import lifecycle
from keys.audit import Actor
from keys.lifecycle import Conflict, Issued
from keys.models import LeakDoor, LeakResponse, Organization, Scope
from keys.permissions import Role
from keys.verdicts import Code
from portal.models import User
from usage import trials
from usage.billing import Period, accounts, closing, plans, subscriptions
from usage.billing.plans import PriceSpec
from usage.demo import Traffic, seed_usage

SLUG = "acme"
SCOPES = {
    "geocode:read": "Turn addresses into coordinates and back",
    "routes:read": "Plan routes between places",
    "routes:write": "Save and share routes",
    "tiles:read": "Load map tiles",
}
PEOPLE = {  # address → role in the demo's organization; None: the provider's staff
    "owner@example.com": Role.OWNER,
    "developer@example.com": Role.DEVELOPER,
    "viewer@example.com": Role.VIEWER,
    "staff@example.com": None,
}
PRICES = (
    PriceSpec(
        "requests",
        model="graduated",
        included=250_000,
        tiers=[(500_000, "0.0004"), (1_000_000, "0.0003"), (None, "0.0002")],
    ),
    PriceSpec("requests", "routes", unit_price="0.002", included=20_000),
)
REPOSITORY = "https://github.com/acme-maps/importer/blob/main/settings.py"
QUICKSTART_NAME = "Quickstart"
QUICKSTART_SCOPES = ("geocode:read", "tiles:read")
LACKING_SCOPE = "routes:write"
MARK = {"made-by": "quickstart"}  # among the metadata of the key by which a later run knows the demo
_MARKED = {"metadata__made-by": "quickstart"}
_HAS_MARKED = {f"keys__{lookup}": value for lookup, value in _MARKED.items()}


def is_empty() -> bool:
    """Is there nothing in this database that somebody made?"""
    return not Organization.objects.exists() and not User.objects.exists()


def is_somebody_elses() -> bool:
    """Has this database, whether migrated or not yet, data that is not the demo's?"""
    if Organization._meta.db_table not in connection.introspection.table_names():
        return False
    return not is_empty() and not Organization.objects.filter(slug=SLUG, **_HAS_MARKED).exists()


def find() -> Organization | None:
    """The demo's organization, if this database has one."""
    return Organization.objects.filter(slug=SLUG, **_HAS_MARKED).select_related("policy").first()


def renew_password() -> str:
    """One new password for all of the demo's people. It is in no file: every run prints its own."""
    password = secrets.token_urlsafe(9)
    User.objects.filter(email__in=PEOPLE).update(password=make_password(password))
    return password


def working_key(organization: Organization, now: dt.datetime) -> Issued:
    """A new secret for the demo's quickstart key, which ends the last run's; a new key if that has ended.

    Raises lifecycle.Refused if the organization may have none.
    """
    actor = lifecycle.command_actor()
    for key in organization.keys.filter(revoked_at=None, **_MARKED).select_related("organization__policy"):
        if key.disabled_at is None and (key.expires_at is None or key.expires_at > now):
            return lifecycle.rotate_key(actor, key, overlap=dt.timedelta(0), now=now)
    return _quickstart_key(actor, organization, now)


def _quickstart_key(actor: Actor, organization: Organization, now: dt.datetime) -> Issued:
    return lifecycle.create_key(
        actor, organization, name=QUICKSTART_NAME, scopes=QUICKSTART_SCOPES, metadata=MARK, now=now
    )


@transaction.atomic
def seed(now: dt.datetime) -> Issued:
    """Everything, in one transaction; returns the working key."""
    story = _Story(now)
    story.begin()
    story.subscribe()
    keys = story.keys()
    working = _quickstart_key(lifecycle.command_actor(), story.organization, now)
    seed_usage(_traffic(keys, now), now)
    with suppress(Conflict):  # it is too early in the month
        closing.close(Period.of(now).previous, lifecycle.command_actor(), now=now)
    return working


@dataclass
class _Story:
    """The acts of the month before `now`, the earliest first."""

    now: dt.datetime
    people: dict[str, User] = field(default_factory=dict)

    def ago(self, *, days: float = 0, hours: float = 0) -> dt.datetime:
        return self.now - dt.timedelta(days=days, hours=hours)

    def begin(self) -> None:
        """Scopes, people, the organization and who is in it."""
        command = lifecycle.command_actor()
        for name, description in SCOPES.items():
            if Scope.objects.filter(name=name).exists():
                continue
            lifecycle.create_scope(command, name=name, description=description, now=self.ago(days=32))
        for email, role in PEOPLE.items():
            person = User(email=email, is_staff=role is None, is_superuser=role is None)
            person.set_unusable_password()
            person.date_joined = self.ago(days=32)
            person.save()
            EmailAddress.objects.create(user=person, email=email, verified=True, primary=True)
            self.people[email] = person
        self.organization = lifecycle.create_organization(
            command,
            slug=SLUG,
            name="Acme Maps",
            owner=self.people["owner@example.com"],
            now=self.ago(days=31),
        )
        for email, role in PEOPLE.items():
            if role not in (None, Role.OWNER):
                lifecycle.add_member(
                    self.actor("owner@example.com"),
                    self.organization,
                    self.people[email],
                    role,
                    now=self.ago(days=31) + dt.timedelta(minutes=20),
                )

    def subscribe(self) -> None:
        """A plan with a fee, tiers and a quota, and the organization on it from its first day."""
        command, now = lifecycle.command_actor(), self.ago(days=31) + dt.timedelta(minutes=30)
        policy = lifecycle.create_policy(
            command,
            slug="growth",
            name="Growth",
            rates=["1000/second"],
            quotas=["2500000/month"],
            now=now,
        )
        plan = plans.create_plan(command, slug="growth", name="Growth", policy=policy, now=now)
        draft = plans.draft_version(command, plan, currency="USD", fee=4900, prices=PRICES, now=now)
        version = plans.publish(command, draft, now=now)
        subscriptions.subscribe(command, self.organization, version, now=now)
        accounts.edit_account(
            command,
            self.organization,
            name="Acme Maps Inc.",
            email="accounts@example.com",
            address="1 Meridian Street, Greenwich, CT 06830, USA",
            tax_id="12-3456789",
            now=now,
        )
        self.organization.refresh_from_db()

    def actor(self, email: str) -> Actor:
        membership = self.organization.memberships.get(user=self.people[email])
        return lifecycle.member_actor(self.people[email], membership)

    def keys(self) -> dict[str, Issued]:
        """One key in each state that a page can show."""
        owner, developer = self.actor("owner@example.com"), self.actor("developer@example.com")
        made: dict[str, Issued] = {}

        # Any: the lifecycle's own arguments, passed on.
        def make(actor: Actor, days: float, name: str, *scopes: str, **fields: Any) -> None:
            made[name] = lifecycle.create_key(
                actor, self.organization, name=name, scopes=scopes, now=self.ago(days=days), **fields
            )

        make(owner, 30.9, "Production gateway", "geocode:read", "tiles:read", rates=["200/second"])
        make(developer, 30.5, "Route planner", "geocode:read", "routes:read", "routes:write")
        make(developer, 30.2, "Old importer", "geocode:read")
        make(developer, 29, "Staging tests", *SCOPES, environment="test", networks=["10.0.0.0/8"])
        make(owner, 24, "Partner Northwind", "tiles:read", expires_at=self.ago(days=-6))
        make(developer, 18, "Conference demo", "tiles:read", expires_at=self.ago(days=4))
        make(
            *(developer, 16, "Mobile app", "geocode:read", "tiles:read"),
            rates=["50/second", "20000/hour"],
            metadata={"platforms": "iOS, Android"},
        )
        canary = lifecycle.plant_canary(
            owner, self.organization, name="In the deployment wiki", now=self.ago(days=14)
        )
        self.leak(made["Old importer"], LeakDoor.GITHUB, REPOSITORY, self.ago(days=9))
        trials.start(
            developer,
            made["Partner Northwind"].key,
            days=14,
            now=self.ago(days=5),
            scopes=["tiles:read"],
            networks=["192.0.2.0/28"],
            rates=["300/hour"],
            quotas=["5000/day"],
        )
        self.leak(canary, LeakDoor.CANARY, "198.51.100.66", self.ago(days=2))
        made["Route planner, new secret"] = lifecycle.rotate_key(
            developer, made["Route planner"].key, overlap=dt.timedelta(hours=24), now=self.ago(hours=5)
        )
        return made

    def leak(self, issued: Issued, door: LeakDoor, place: str, at: dt.datetime) -> None:
        """A key is seen where it should not be, and revoked if it still works."""
        response = LeakResponse.REVOKE
        lifecycle.report_leak(issued.secret, door=door, place=place, response=response, now=at)


def _traffic(keys: dict[str, Issued], now: dt.datetime) -> list[Traffic]:
    """How each key was called; addresses are from the ranges for documentation (RFC 5737, RFC 3849)."""
    secret = {name: issued.secret for name, issued in keys.items()}
    return [
        Traffic(
            secret["Production gateway"],
            peak=1840,
            shares={"tiles": 0.8, "geocode": 0.2},
            refused={Code.RATE_LIMITED: 0.004},
            user_agent="acme-gateway/2.4",
        ),
        Traffic(
            secret["Mobile app"],
            peak=920,
            shares={"tiles": 0.9, "geocode": 0.1},
            refused={Code.RATE_LIMITED: 0.006, Code.INSUFFICIENT_SCOPE: 0.003},
            night=0.15,
            weekend=1.25,
            address="2001:db8::4f",
            user_agent="AcmeMaps/5.1 (iOS)",
        ),
        Traffic(
            secret["Route planner"],
            peak=310,
            shares={"routes": 0.7, "geocode": 0.3},
            weekend=0.3,
            address="198.51.100.7",
            user_agent="route-planner/1.9",
        ),
        Traffic(  # the half of its servers that have the new secret already
            secret["Route planner, new secret"],
            peak=240,
            shares={"routes": 0.7, "geocode": 0.3},
            weekend=0.3,
            address="198.51.100.8",
            user_agent="route-planner/2.0",
        ),
        Traffic(
            secret["Staging tests"],
            peak=45,
            shares={"tiles": 0.5, "routes": 0.5},
            refused={Code.INSUFFICIENT_SCOPE: 0.02, Code.IP_NOT_ALLOWED: 0.04},
            night=0.05,
            weekend=0.02,
            address="10.20.0.14",
            user_agent="pytest",
        ),
        Traffic(
            secret["Partner Northwind"],
            peak=420,
            shares={"tiles": 1.0},
            refused={Code.INSUFFICIENT_SCOPE: 0.01},
            night=0.5,
            address="192.0.2.61",
            user_agent="northwind-proxy",
        ),
        Traffic(
            secret["Conference demo"],
            peak=70,
            shares={"tiles": 1.0},
            ends=now - dt.timedelta(days=4),
            ending=Code.EXPIRED,
            address="192.0.2.99",
            user_agent="Mozilla/5.0",
        ),
        Traffic(
            secret["Old importer"],
            peak=160,
            shares={"geocode": 1.0},
            ends=now - dt.timedelta(days=9),
            ending=Code.REVOKED,
            night=0.9,
            weekend=1.0,
            address="198.51.100.200",
            user_agent="python-urllib/3.11",
        ),
    ]
