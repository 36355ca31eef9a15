"""One table: which role may do what.

Views, the machine API, pages and tests read this and nothing else. A role is a person's place in one
organization; staff are outside it and act through the admin.
"""

from enum import StrEnum


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    BILLING = "billing"
    VIEWER = "viewer"


class Act(StrEnum):
    VIEW = "view"  # overview, keys, usage
    CREATE_KEY = "create_key"
    EDIT_KEY = "edit_key"
    ROTATE_KEY = "rotate_key"
    REVOKE_KEY = "revoke_key"
    VIEW_TEAM = "view_team"
    MANAGE_TEAM = "manage_team"
    VIEW_ACTIVITY = "view_activity"
    VIEW_BILLING = "view_billing"
    EDIT_ALERTS = "edit_alerts"  # of what the month comes to
    EDIT_ORGANIZATION = "edit_organization"
    TRANSFER_OWNERSHIP = "transfer_ownership"


_VIEW = {Act.VIEW, Act.VIEW_TEAM}
_KEYS = {Act.CREATE_KEY, Act.EDIT_KEY, Act.ROTATE_KEY, Act.REVOKE_KEY}

TABLE: dict[Role, frozenset[Act]] = {
    Role.OWNER: frozenset(Act),
    Role.ADMIN: frozenset(set(Act) - {Act.TRANSFER_OWNERSHIP}),
    Role.DEVELOPER: frozenset(_VIEW | _KEYS | {Act.VIEW_ACTIVITY}),
    Role.BILLING: frozenset(_VIEW | {Act.VIEW_BILLING, Act.EDIT_ALERTS}),
    Role.VIEWER: frozenset(_VIEW),
}

# Staff who look at an organization's pages: no role that anybody has, and nothing but sight.
VISITOR = "visitor"
_VISITORS = frozenset(_VIEW | {Act.VIEW_ACTIVITY, Act.VIEW_BILLING})

ROLE_SUMMARY: dict[Role, str] = {
    Role.OWNER: "Everything, including handing the organization over.",
    Role.ADMIN: "Keys, team, activity, billing and settings.",
    Role.DEVELOPER: "Creates, rotates and revokes keys; sees usage and activity.",
    Role.BILLING: "Sees usage and billing, and sets alerts; cannot touch keys.",
    Role.VIEWER: "Sees keys and usage; changes nothing.",
}

# The acts as people read them, in the order of the table on the team page.
ACT_SUMMARY: dict[Act, str] = {
    Act.VIEW: "See keys, usage and refusals",
    Act.VIEW_TEAM: "See who is in the team",
    Act.CREATE_KEY: "Create keys",
    Act.EDIT_KEY: "Edit, disable and enable keys",
    Act.ROTATE_KEY: "Rotate keys",
    Act.REVOKE_KEY: "Revoke keys",
    Act.VIEW_ACTIVITY: "See the activity",
    Act.VIEW_BILLING: "See billing and statements",
    Act.EDIT_ALERTS: "Set billing alerts",
    Act.MANAGE_TEAM: "Invite people, change roles, remove members",
    Act.EDIT_ORGANIZATION: "Change the organization’s settings",
    Act.TRANSFER_OWNERSHIP: "Make owners, and transfer ownership",
}


def allows(role: Role | str, act: Act) -> bool:
    """May someone with `role` perform `act`? An unknown role may nothing."""
    if role == VISITOR:
        return act in _VISITORS
    try:
        return act in TABLE[Role(role)]
    except ValueError:
        return False
