"""`create_organization SLUG --name NAME [--owner EMAIL] [--plan SLUG] [--dry-run]`: a customer; running it
again changes only the name, who owns it, or its plan."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.management.base import CommandParser
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone

from keys import lifecycle
from keys.effects import SHORT
from keys.management.base import REFUSED, PortalCommand, refuse
from keys.models import Organization
from keys.permissions import Role
from usage.billing import subscriptions
from usage.billing.preview import preview
from usage.models import PlanVersion


class Command(PortalCommand):
    help = "Create an organization, or bring an existing one's name and owner up to date."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", metavar="SLUG", help="lower-case letters, digits and hyphens; for ever")
        parser.add_argument("--name", required=True)
        parser.add_argument("--plan", metavar="SLUG", help="subscribe it to this plan's newest version")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="say what it would do, and change nothing",
        )
        parser.add_argument("--owner", metavar="EMAIL", help="who will own it; signs in with a mailed code")

    def handle(
        self,
        *args: Any,
        slug: str,
        name: str,
        owner: str | None,
        plan: str | None,
        dry_run: bool,
        **options: Any,
    ) -> None:
        now, actor = timezone.now(), lifecycle.command_actor()
        version = None if plan is None else _version(plan)
        email = None if owner is None else _clean_email(owner)
        found = Organization.objects.filter(slug=slug).first() if slug.isascii() else None
        is_new = version is not None and (found is None or not _is_on(found, version.plan_id))
        if is_new and version is not None and version.plan.archived_at is not None:
            refuse("This plan is archived; nobody new subscribes to it.", REFUSED)
        if dry_run:
            self._say_what_would_be(slug, found, version)
            return
        if found is None:
            with transaction.atomic():  # a refused organization leaves no user behind
                person = None if email is None else _person(email)
                organization = lifecycle.create_organization(
                    actor, slug=slug, name=name, owner=person, now=now
                )
            self.say(f'Created the organization {organization.slug} ("{organization.name}").')
        else:
            organization = lifecycle.edit_organization(actor, found, name=name, now=now)
            changed = "" if organization.name == found.name else f' Its name is now "{organization.name}".'
            self.say(f"The organization {organization.slug} exists already.{changed}")
            if email is not None:
                self._make_owner(organization, email)
        if version is not None:
            self._subscribe(organization, version)

    def _say_what_would_be(self, slug: str, found: Organization | None, version: PlanVersion | None) -> None:
        """What a plan would change for an organization that there is; nothing is written."""
        if found is None:
            self.say(f"There is no organization {slug[:50]!r}: it would be made. Nothing has been changed.")
            return
        self.say(f"The organization {found.slug} exists already. Nothing has been changed.")
        if version is None or _is_on(found, version.plan_id):
            return
        would = preview(found, version, now=timezone.now())
        self.say(f"It would be on the plan {version.plan.slug} from {would.start:%Y-%m-%d %H:%M} UTC.")
        for change in (*would.prices, would.estimate, would.policy_name, *would.policy):
            if not change.same:
                before, after = (", ".join(lines) or "none" for lines in (change.before, change.after))
                self.say(f"{change.label}: {before} -> {after}")
        for sentence in would.keys.sentences():
            self.say(sentence)
        for each in would.keys.shown:
            rules = ", ".join(SHORT[rule] for rule in each.rules)
            self.say(f"  {each.key.public_id} {each.key.name}: {rules}")

    def _subscribe(self, organization: Organization, version: PlanVersion) -> None:
        now = timezone.now()
        at = subscriptions.next_hour(now)
        if _is_on(organization, version.plan_id):
            return
        subscriptions.subscribe(lifecycle.command_actor(), organization, version, now=now)
        self.say(f"It is on the plan {version.plan.slug} from {at:%Y-%m-%d %H:%M} UTC.")

    def _make_owner(self, organization: Organization, email: str) -> None:
        now, actor = timezone.now(), lifecycle.command_actor()
        person = _person(email)
        membership = organization.memberships.filter(user_id=person.pk).first()
        if membership is None:
            lifecycle.add_member(actor, organization, person, Role.OWNER, now=now)
        elif membership.role != Role.OWNER:
            lifecycle.change_role(actor, membership, Role.OWNER, now=now)
        else:
            return
        self.say(f"{email} is now an owner.")


def _is_on(organization: Organization, plan_id: int) -> bool:
    """Is it on this plan already in the hour in which another would begin?"""
    current = subscriptions.in_force(organization, subscriptions.next_hour(timezone.now()))
    return current is not None and current.version.plan_id == plan_id


def _version(slug: str) -> PlanVersion:
    """The newest published version of a plan."""
    rows = PlanVersion.objects.filter(plan__slug=slug, published_at__isnull=False)
    found = rows.select_related("plan").order_by("-number").first() if slug.isascii() else None
    if found is None:
        refuse(f"There is no published plan {slug[:50]!r}.")
    return found


def _clean_email(text: str) -> str:
    try:
        validate_email(text)
    except ValidationError:
        refuse(f"{text[:64]!r} is not an e-mail address.")
    if len(text) > 254:
        refuse("The e-mail address is longer than 254 characters.")
    return text.lower()


def _person(email: str) -> AbstractBaseUser:
    """The user of this address, made without a password if there is none: a mailed code signs them in."""
    users = get_user_model().objects
    return users.filter(email=email).first() or users.create_user(email)
