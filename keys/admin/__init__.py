"""Staff's view of who may call, in Django's admin.

Every write goes through `keys.lifecycle` as the person signed in, so that each is one audited act; the
admin's own save and delete are never used for these tables. Neither digest nor secret is on any page,
but for a new secret in the answer to the request that made it.
"""

from keys.admin.approvals import ScopeRequestAdmin
from keys.admin.audit import AuditEventAdmin
from keys.admin.keys import KeyAdmin
from keys.admin.leaks import LeakReportAdmin
from keys.admin.organizations import MembershipAdmin, NoteAdmin, OrganizationAdmin
from keys.admin.rules import PolicyAdmin, ScopeAdmin

__all__ = [
    "AuditEventAdmin",
    "KeyAdmin",
    "LeakReportAdmin",
    "MembershipAdmin",
    "NoteAdmin",
    "OrganizationAdmin",
    "PolicyAdmin",
    "ScopeAdmin",
    "ScopeRequestAdmin",
]
