"""Every act that changes who may call: one function, one transaction, one audit event each.

Views, admin, commands and the machine API parse, call a function from here and answer; none of them
writes these tables itself. Policy is enforced here and nowhere else, so no door goes round it.
"""

from keys.lifecycle.actors import command_actor, key_actor, member_actor, staff_actor, visitor_actor
from keys.lifecycle.approvals import approve_scope, deny_scope, request_scope
from keys.lifecycle.canaries import plant_canary, take_up_canary
from keys.lifecycle.idle import notice_before, retire_idle
from keys.lifecycle.invitations import (
    accept_invitation,
    forget_invitations,
    invite,
    resend_invitation,
    sender_may_still,
    withdraw_invitation,
)
from keys.lifecycle.leaks import report_leak
from keys.lifecycle.members import (
    add_member,
    change_role,
    is_only_owner,
    remove_member,
    transfer_ownership,
)
from keys.lifecycle.organizations import (
    add_note,
    apply_policy,
    create_organization,
    create_policy,
    create_scope,
    edit_organization,
    edit_policy,
    edit_scope,
    resume_organization,
    suspend_organization,
)
from keys.lifecycle.refusals import Conflict, Forbidden, Invalid, Refused
from keys.lifecycle.rules import (
    DEFAULT,
    UNSET,
    allowed_scopes,
    default_expiry,
    kept_expiry,
    longest_expiry,
)
from keys.lifecycle.secrets import (
    Issued,
    create_key,
    disable_key,
    edit_key,
    enable_key,
    end_overlap,
    extend_overlap,
    import_key,
    revoke_key,
    roll_back_rotation,
    rotate_key,
)
from keys.lifecycle.visits import VISIT_LASTS, begin_visit, end_visit, end_visits

__all__ = [
    "DEFAULT",
    "UNSET",
    "VISIT_LASTS",
    "Conflict",
    "Forbidden",
    "Invalid",
    "Issued",
    "Refused",
    "accept_invitation",
    "add_member",
    "add_note",
    "allowed_scopes",
    "apply_policy",
    "approve_scope",
    "begin_visit",
    "change_role",
    "command_actor",
    "create_key",
    "create_organization",
    "create_policy",
    "create_scope",
    "default_expiry",
    "deny_scope",
    "disable_key",
    "edit_key",
    "edit_organization",
    "edit_policy",
    "edit_scope",
    "enable_key",
    "end_overlap",
    "end_visit",
    "end_visits",
    "extend_overlap",
    "forget_invitations",
    "import_key",
    "invite",
    "is_only_owner",
    "kept_expiry",
    "key_actor",
    "longest_expiry",
    "member_actor",
    "notice_before",
    "plant_canary",
    "remove_member",
    "report_leak",
    "request_scope",
    "resend_invitation",
    "resume_organization",
    "retire_idle",
    "revoke_key",
    "roll_back_rotation",
    "rotate_key",
    "sender_may_still",
    "staff_actor",
    "suspend_organization",
    "take_up_canary",
    "transfer_ownership",
    "visitor_actor",
    "withdraw_invitation",
]
