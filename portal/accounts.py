"""Who may sign up, and what our account mails know; django-allauth does the rest.

`SIGNUP` is read here and nowhere else. Nothing here signs anybody in or sets a password.
"""

import re
import secrets
from typing import Any, NamedTuple

from allauth.account.adapter import DefaultAccountAdapter, get_adapter
from allauth.account.forms import SignupForm
from allauth.account.internal.flows.login import record_authentication
from django import forms
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone

from keys.models import Invitation
from portal import terms

_INVITATION = re.compile(r"/invitations/(inv_[0-9A-Za-z]{16})/", re.ASCII)


class SignupPolicy(NamedTuple):
    """What `SIGNUP` says. `domains` are those of `domain:…`, in lower case; empty: any."""

    is_open: bool
    by_invitation: bool
    domains: tuple[str, ...]

    @property
    def domains_text(self) -> str:
        """The domains as people read them: `@example.com or @other.org`."""
        return " or ".join(f"@{domain}" for domain in self.domains)

    def admits(self, email: str) -> bool:
        """May this address belong to an account? Subdomains are domains of their own."""
        return not self.domains or email.rpartition("@")[2].lower() in self.domains


def signup_policy() -> SignupPolicy:
    """`SIGNUP` = `open`, `invite`, `closed` or `domain:a.example[,b.example]`; anything else is closed."""
    value = settings.SIGNUP.strip()
    kind, _, rest = value.partition(":")
    domains = tuple(domain.strip().lstrip("@").lower() for domain in rest.split(",") if domain.strip())
    return SignupPolicy(
        is_open=value == "open" or (kind == "domain" and bool(domains)),
        by_invitation=value == "invite",
        domains=domains if kind == "domain" else (),
    )


def asked(request: HttpRequest) -> Invitation | None:
    """The open invitation to which a page of sign-up leads back, by its `next`."""
    found = _INVITATION.fullmatch(request.POST.get("next") or request.GET.get("next") or "")
    invitation = Invitation.objects.filter(public_id=found[1]).first() if found else None
    return invitation if invitation is not None and invitation.is_open_at(timezone.now()) else None


class InvitedSignupForm(SignupForm):  # type: ignore[misc]  # allauth has no types
    """Sign-up. Whoever is invited finds the address filled in; by invitation, no other address will do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.invitation = asked(get_adapter().request)
        if self.invitation is not None:
            self.fields["email"].initial = self.invitation.email
        if terms.version():
            self.fields["terms"] = forms.BooleanField(
                label="I accept the terms", error_messages={"required": "Accept the terms to go on."}
            )

    def clean_email(self) -> str:
        email: str = super().clean_email()
        if signup_policy().by_invitation and (
            self.invitation is None or email.lower() != self.invitation.email
        ):
            raise ValidationError("Use the address that was invited.", code="email_not_invited")
        return email

    def try_save(self, request: HttpRequest) -> Any:
        terms.promise(request, self.cleaned_data["email"])
        return super().try_save(request)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """allauth's decisions that are ours."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        policy = signup_policy()
        return policy.is_open or (policy.by_invitation and asked(request) is not None)

    def clean_email(self, email: str) -> str:
        """Called for new accounts and for addresses added to one; signing in is never refused here."""
        policy = signup_policy()
        if not policy.admits(email):
            raise ValidationError(
                f"Use an address that ends in {policy.domains_text}.", code="email_domain_not_allowed"
            )
        return email

    def login(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        super().login(request, user)
        # Whoever signed in a moment ago is not asked again before making a key; allauth alone would ask.
        record_authentication(request, user, method="sign-in", reauthenticated=True)
        terms.keep_promise(request, user, timezone.now())

    def send_account_already_exists_mail(self, email: str) -> None:
        # A new account costs a password's hash: without one here, the time would tell who has an account.
        make_password(secrets.token_urlsafe())
        super().send_account_already_exists_mail(email)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        # Subjects are rendered without a request, so the context processor does not reach them.
        names = {"portal_name": settings.PORTAL_NAME, "portal_url": settings.PORTAL_URL}
        super().send_mail(template_prefix, email, names | context)
