"""What would make a refused call work, as a link to the page where it is done.

One answer for each code, for members of the organization whose key it is; whether the reader may do it is
the template's question, by the act. It reads what it is given and never queries.
"""

from typing import NamedTuple

from django.urls import reverse

from keys.models import Key, Organization
from keys.permissions import Act
from keys.verdicts import Code


class Mend(NamedTuple):
    """A link, and the act that the reader's role must allow."""

    label: str
    url: str
    act: Act


_ON_KEY = {
    Code.EXPIRED: ("Give it a new expiry", "key_edit", Act.EDIT_KEY),
    Code.IP_NOT_ALLOWED: ("Change its allowed networks", "key_edit", Act.EDIT_KEY),
    Code.INSUFFICIENT_SCOPE: ("Change its scopes", "key_edit", Act.EDIT_KEY),
    Code.RATE_LIMITED: ("Change its rate limits", "key_edit", Act.EDIT_KEY),
    Code.QUOTA_EXCEEDED: ("See what is left", "key", Act.VIEW),
    Code.DISABLED: ("Enable it", "key", Act.EDIT_KEY),
}


def of(code: Code, key: Key, organization: Organization) -> Mend | None:
    """What to do about a call that was refused with this code; `organization` is the key's."""
    at = {"organization": organization.slug}
    at_key = at | {"key_id": key.public_id}
    if key.canary:
        return Mend("See the alarms", reverse("key_leaks", kwargs=at_key), Act.VIEW)
    if code is Code.ENVIRONMENT_MISMATCH:
        other = "test" if key.environment == "live" else "live"
        return Mend(f"Your {other} keys", f"{reverse('keys', kwargs=at)}?environment={other}", Act.VIEW)
    if key.revoked_at is not None:
        return Mend("Create another key", reverse("key_new", kwargs=at), Act.CREATE_KEY)
    if code is Code.REVOKED:  # only this secret of it
        return Mend("See its secrets", reverse("key", kwargs=at_key), Act.VIEW)
    if code in _ON_KEY:
        label, page, act = _ON_KEY[code]
        return Mend(label, reverse(page, kwargs=at_key), act)
    return None
