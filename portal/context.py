"""What every template may use: the portal's name, and the shell's navigation and organizations.

It reads the request and nothing else; what costs a query is worked out only when a template asks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from keys.models import Organization
from keys.permissions import Act, allows
from portal import brand, terms
from portal.accounts import signup_policy


class NavItem(NamedTuple):
    """One line of the sidebar. `icon` is a name of components/icons.html."""

    url: str
    label: str
    icon: str
    active: bool


# (label, URL name, icon, the act that shows it, URL names under which it is the current one)
ORGANIZATION_PAGES = (
    ("Overview", "overview", "overview", Act.VIEW, ()),
    (
        "API keys",
        "keys",
        "key",
        Act.VIEW,
        (
            "key",
            "key_new",
            "key_edit",
            "key_rotate",
            "key_revoke",
            "key_leaks",
            "key_ask",
            "key_first_call",
            "key_try",
            "key_canary",
            "key_disable",
            "key_enable",
            "keys_label",
            "keys_revoke",
            "key_end_overlap",
            "key_extend_overlap",
            "key_roll_back",
        ),
    ),
    ("Attention", "attention", "warn", Act.VIEW, ("trials", "trial", "trial_new")),
    ("Usage", "usage", "usage", Act.VIEW, ()),
    ("Refusals", "refusals", "revoke", Act.VIEW, ()),
    ("Billing", "billing", "billing", Act.VIEW_BILLING, ("statement", "alert_new", "alert_remove")),
    (
        "Team",
        "team",
        "team",
        Act.VIEW_TEAM,
        ("team_invite", "team_leave", "team_transfer", "team_member", "team_remove", "invitation_withdraw"),
    ),
    ("Activity", "activity", "activity", Act.VIEW_ACTIVITY, ()),
    ("Settings", "organization_settings", "settings", Act.EDIT_ORGANIZATION, ()),
)
_ACCOUNT_PAGES = (
    ("Home", "home", "home"),
    ("Email addresses", "account_email", "mail"),
    ("Password", "account_change_password", "lock"),
)


def portal(request: HttpRequest) -> dict[str, Any]:
    return {
        **brand.looks(),
        "key_prefix": settings.KEY_PREFIX,
        "signup": signup_policy(),
        "terms_version": terms.version(),
        "can": _may(request),
        "nav": SimpleLazyObject(lambda: navigation(request)),
        "organizations": SimpleLazyObject(lambda: _organizations(request)),
    }


def navigation(request: HttpRequest) -> list[NavItem]:
    """The sidebar's lines: the organization's pages this member may open, or else the account's."""
    here = request.resolver_match.url_name if request.resolver_match else None
    organization = getattr(request, "organization", None)
    membership = getattr(request, "membership", None)
    if organization is None or membership is None:
        if not request.user.is_authenticated:
            return []
        pages = [*_ACCOUNT_PAGES, *([("Terms", "terms", "docs")] if terms.version() else [])]
        items = [NavItem(reverse(name), label, icon, here == name) for label, name, icon in pages]
    else:
        items = [
            NavItem(
                reverse(name, kwargs={"organization": organization.slug}), label, icon, here in (name, *more)
            )
            for label, name, icon, act, more in ORGANIZATION_PAGES
            if allows(membership.role, act)
        ]
    return [*items, NavItem(reverse("docs"), "Docs", "docs", here == "docs")]


def _may(request: HttpRequest) -> frozenset[str]:
    """The acts that this member's role allows, for `{% if "create_key" in can %}`."""
    membership = getattr(request, "membership", None)
    return frozenset(str(act) for act in Act if membership and allows(membership.role, act))


def _organizations(request: HttpRequest) -> Sequence[Organization]:
    """The organizations of who is signed in, by name; `keys.access` may have read them."""
    if hasattr(request, "memberships"):
        return [membership.organization for membership in request.memberships]
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return []
    return list(user.organizations.order_by("name", "id"))
