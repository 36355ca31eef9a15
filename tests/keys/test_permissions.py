"""The table of role × act, written out a second time: a change of it must be meant."""

import pytest

from keys.permissions import ACT_SUMMARY, ROLE_SUMMARY, TABLE, Act, Role, allows

# act: owner, admin, developer, billing, viewer
EXPECTED = {
    Act.VIEW: (True, True, True, True, True),
    Act.CREATE_KEY: (True, True, True, False, False),
    Act.EDIT_KEY: (True, True, True, False, False),
    Act.ROTATE_KEY: (True, True, True, False, False),
    Act.REVOKE_KEY: (True, True, True, False, False),
    Act.VIEW_TEAM: (True, True, True, True, True),
    Act.MANAGE_TEAM: (True, True, False, False, False),
    Act.VIEW_ACTIVITY: (True, True, True, False, False),
    Act.VIEW_BILLING: (True, True, False, True, False),
    Act.EDIT_ALERTS: (True, True, False, True, False),
    Act.EDIT_ORGANIZATION: (True, True, False, False, False),
    Act.TRANSFER_OWNERSHIP: (True, False, False, False, False),
}
ROLES = (Role.OWNER, Role.ADMIN, Role.DEVELOPER, Role.BILLING, Role.VIEWER)
CELLS = [
    (role, act, allowed) for act, row in EXPECTED.items() for role, allowed in zip(ROLES, row, strict=True)
]


@pytest.mark.parametrize(("role", "act", "allowed"), CELLS)
def test_a_role_may_what_the_table_says(role: Role, act: Act, allowed: bool) -> None:
    assert allows(role, act) is allowed
    assert allows(role.value, act) is allowed


def test_every_act_and_role_is_listed_here() -> None:
    assert set(EXPECTED) == set(Act) == set(ACT_SUMMARY)
    assert set(ROLES) == set(Role) == set(TABLE) == set(ROLE_SUMMARY)


@pytest.mark.parametrize("role", ["", "Owner", "OWNER", "owner ", "root", "staff", "\0"])
@pytest.mark.parametrize("act", list(Act))
def test_an_unknown_role_may_nothing(role: str, act: Act) -> None:
    assert not allows(role, act)


def test_nobody_may_more_than_the_owner() -> None:
    assert all(TABLE[role] <= TABLE[Role.OWNER] for role in Role)
