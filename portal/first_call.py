"""Whether a new secret's first call has arrived, for the panel that waits for it.

It reads what the drain has written, some seconds behind the calls themselves, and never writes. Calls with a
mistyped key are nobody's, so no panel can show them.
"""

import datetime as dt
import re
from typing import Final, NamedTuple

from keys.models import Key, KeyState, Organization, Secret
from keys.verdicts import Code
from portal import mends
from portal.mends import Mend
from usage import refusal_reports, reports
from usage.models import SecretUse

PATIENCE: Final = dt.timedelta(minutes=3)  # then a page looks again only when told to
_SINCE = re.compile(r"[0-9]{1,11}", re.ASCII)


class FirstCall(NamedTuple):
    """What is known of the calls with a key's current secret; an accepted one outweighs refused ones."""

    use: SecretUse | None = None  # of accepted calls
    code: Code | None = None  # of the newest call, if any was recorded
    request: str = ""  # a refused call's id
    at: dt.datetime | None = None
    seconds_ago: int = 0
    mend: Mend | None = None


def look(key: Key, now: dt.datetime) -> FirstCall:
    """What has arrived with the key's current secret. The key comes with its organization."""
    secret = key.secrets.get(stops_at=None)
    use = reports.last_uses([secret.pk]).get(secret.pk)
    if use is not None:
        return FirstCall(use, Code.VALID, at=use.last_used_at, seconds_ago=_seconds(use.last_used_at, now))
    return unused(key, secret, now)


def unused(key: Key, secret: Secret, now: dt.datetime) -> FirstCall:
    """The same of a secret that has had no accepted call; one query."""
    of_key = refusal_reports.find(refusal_reports.of_organization(key.organization), keys=[key.pk])
    refusal = of_key.filter(secret=secret).first()
    code = Code.__members__.get(refusal.outcome) if refusal else None
    if refusal is None or code is None:  # none, or one of a later version
        return FirstCall()
    return FirstCall(
        code=code,
        request=refusal.request_id,
        at=refusal.at,
        seconds_ago=_seconds(refusal.at, now),
        mend=mends.of(code, key, key.organization),
    )


def awaited(organization: Organization, now: dt.datetime) -> Secret | None:
    """The newest secret of a working key that has had no accepted call; with its key and organization."""
    unused = Secret.objects.filter(
        key__in=organization.keys.in_state(KeyState.ACTIVE, now), stops_at=None, last_use=None
    )
    return unused.select_related("key__organization").defer("digest").order_by("-created_at", "-pk").first()


def is_over(since: str, now: dt.datetime) -> bool:
    """Has a page that waits since then (Unix time, as its address says) waited long enough?"""
    return bool(_SINCE.fullmatch(since)) and now.timestamp() - int(since) >= PATIENCE.total_seconds()


def _seconds(at: dt.datetime, now: dt.datetime) -> int:
    return max(int((now - at).total_seconds()), 0)
