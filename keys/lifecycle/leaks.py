"""What happens when somebody tells the portal that a secret of it got out.

A report is kept once for each secret, door and place, however often it is sent; the key's response is part
of the same transaction. It never sees the secret itself, only its row.
"""

import datetime as dt
import unicodedata

from django.db import transaction

from keys import audit, tokens
from keys.audit import Actor
from keys.lifecycle.locks import lock_key
from keys.lifecycle.secrets import disable_key, revoke_key
from keys.models import Key, KeyState, LeakDoor, LeakReport, LeakResponse, Secret

MOST = 100  # reports of one secret; who holds it could otherwise fill the table
PLACE_LENGTH = 500
SOURCE_LENGTH = 40
_WORKS = (KeyState.ACTIVE, KeyState.EXPIRING)
_ENDS = (LeakResponse.REVOKE, LeakResponse.DISABLE)


def report_leak(
    secret: Secret,
    *,
    door: LeakDoor,
    place: str = "",
    source: str = "",
    response: LeakResponse,
    now: dt.datetime,
) -> LeakReport | None:
    """Keep the report and do what `response` says if the secret still worked; None: it is known already.

    Who holds the key and asks for its end (`HOLDER`) gets it, known or not.

    `place` and `source` are others' text, of any length and kind: what cannot be shown is left out.
    """
    actor = Actor("system", door.label)
    place, source = _told(place, PLACE_LENGTH), _told(source, SOURCE_LENGTH)
    with transaction.atomic():
        key = lock_key(secret.key)
        secret = key.secrets.get(pk=secret.pk)  # as it is now: a rotation may just have replaced it
        works = secret.works_at(now) and key.state_at(now) in _WORKS
        done = response if works else LeakResponse.NOTHING
        reports = LeakReport.objects.filter(secret=secret)
        known = reports.filter(door=door, place=place, source=source).exists()
        if known and not (works and door is LeakDoor.HOLDER):
            return None
        # Enough is enough, but not where a secret that still works is now ended.
        if done not in _ENDS and door is not LeakDoor.CANARY and reports.count() >= MOST:
            return None
        report = LeakReport(
            key=key, secret=secret, door=door, place=place, source=source, response=done, reported_at=now
        )
        if not known:
            report.save()
        told = {"secret": secret.display, "place": place, "source": source, "response": done.label}
        audit.append_of(key, "key.leaked", actor, now, told)
        _respond(actor, key, done, now)
    return report


def _respond(actor: Actor, key: Key, response: LeakResponse, now: dt.datetime) -> None:
    if response is LeakResponse.REVOKE:
        revoke_key(actor, key, reason=f"Leaked; reported by {actor.label}", now=now)
    elif response is LeakResponse.DISABLE:
        disable_key(actor, key, now=now)


def _told(text: str, maximum: int) -> str:
    """Somebody else's text as one line that can be shown, without any key in it."""
    shown = "".join(each for each in text[: 4 * maximum] if unicodedata.category(each)[0] != "C")
    return tokens.redact(shown).strip()[:maximum]
