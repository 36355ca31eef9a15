"""A new customer's first step: an organization and its first key, both or neither.

It alone lets a signed-in person found an organization, once; it keeps nothing of the key but what
lifecycle stores.
"""

import datetime as dt
from typing import Any

from django import forms
from django.db import transaction
from django.utils.text import slugify

from keys import lifecycle
from keys.audit import Actor
from keys.forms import RefusableForm, ScopesField, group_scopes
from keys.lifecycle import Conflict, Issued
from keys.lifecycle.organizations import standard_policy
from keys.models import Environment, Key, Organization
from portal.accounts import signup_policy
from portal.models import User


def _slug_of(name: str) -> str:
    return slugify(name.replace("_", " "))[:50].strip("-")


def may_found() -> bool:
    """May people found organizations by themselves? As they may sign up by themselves."""
    return signup_policy().is_open


class WelcomeForm(RefusableForm):
    """Name the organization, and go; everything about the key has a good answer already."""

    organization = forms.CharField(
        max_length=100,
        label="Organization",
        help_text="Your company, team or project.",
        widget=forms.TextInput(
            attrs={"autocomplete": "organization", "autofocus": True, "placeholder": "Acme Maps"}
        ),
        error_messages={"required": "Give your organization a name."},
    )
    slug = forms.CharField(
        max_length=50,
        required=False,
        label="Organization URL",
        help_text="Lower-case letters, digits, hyphens; never changes later. Empty: made from the name.",
        widget=forms.TextInput(
            attrs={
                "autocomplete": "off",
                "autocapitalize": "off",
                "spellcheck": "false",
                "data-slug-of": "id_organization",
            }
        ),
    )
    name = forms.CharField(
        max_length=100,
        required=False,
        initial="My first key",
        label="Key name",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    environment = forms.ChoiceField(
        required=False,
        label="Environment",
        choices=Environment.choices,
        initial=Environment.LIVE,
        widget=forms.RadioSelect,
    )
    scopes = ScopesField(label="Scopes")

    def __init__(self, now: dt.datetime, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not saved: it stands for the organization to be, under the policy that it will have.
        self.future = Organization(policy=standard_policy())
        self.expires_at = lifecycle.default_expiry(self.future, now)
        field = self.fields["scopes"]
        assert isinstance(field, ScopesField)
        field.offer(lifecycle.allowed_scopes(self.future).order_by("name"))

    def scope_groups(self) -> Any:
        return group_scopes(self["scopes"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not cleaned.get("slug") and cleaned.get("organization"):
            cleaned["slug"] = _slug_of(cleaned["organization"])
            if not cleaned["slug"]:
                self.add_error("slug", "Choose a URL for it, e.g. acme-maps.")
        return cleaned

    def refuse(self, refusal: lifecycle.Refused) -> None:
        if refusal.field == "slug" and isinstance(refusal, Conflict):
            slug = self.cleaned_data["slug"]
            self.add_error("slug", f"“{slug}” is taken; choose another, e.g. {slug[:47]}-2.")
        elif refusal.field == "slug":
            example = _slug_of(self.cleaned_data["slug"]) or "acme-maps"
            self.add_error("slug", f"Use lower-case letters, digits and single hyphens, e.g. {example}.")
        else:
            super().refuse(refusal)


def first_key(user: User, public_id: str) -> Key | None:
    """The key that the welcome made, if it is still one of this person's organizations."""
    own = Key.objects.filter(organization__in=user.organizations.all())
    return own.select_related("organization").filter(public_id=public_id).first()


def found(user: User, form: WelcomeForm, now: dt.datetime) -> Issued:
    """The organization with `user` as owner, and its first key. Raises Invalid or Conflict."""
    values = form.cleaned_data
    with transaction.atomic():
        # Two welcome pages sent at once make one organization.
        person = User.objects.select_for_update().get(pk=user.pk)
        if person.memberships.exists():
            raise Conflict("You have an organization already.")
        try:
            organization = lifecycle.create_organization(
                Actor("user", person.get_username(), person.pk),
                slug=values["slug"],
                name=values["organization"],
                owner=person,
                now=now,
            )
        except lifecycle.Refused as refusal:
            # This page's `name` is the key's.
            field = "organization" if refusal.field == "name" else refusal.field
            raise type(refusal)(refusal.sentence, field) from None
        membership = organization.memberships.get(user=person)
        return lifecycle.create_key(
            lifecycle.member_actor(person, membership),
            organization,
            name=values["name"] or "My first key",
            environment=values["environment"] or Environment.LIVE,
            scopes=values["scopes"],
            now=now,
        )
