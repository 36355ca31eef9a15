"""Mails that are written in the transaction of what they are about, and sent afterwards by workers.

`queue` writes each once; `send_due` sends it, by any number of workers. A worker claims a mail before it
sends it and notes afterwards that it went, so that none is lost: one that is killed between the mail server's
answer and that note leaves a mail that is sent again, under the same Message-ID. No secret ever comes here.
"""

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from smtplib import SMTPDataError, SMTPRecipientsRefused, SMTPResponseException, SMTPSenderRefused
from time import monotonic
from typing import Final

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.mail import EmailMessage, mailers
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connections, transaction
from django.db.models import Q
from django.template import Context, Engine
from django.utils import timezone

from keys.models import Organization
from keys.permissions import Role
from portal.models import Mail, User

logger = logging.getLogger(__name__)

ONCE_LENGTH: Final = 200
SUBJECT_LENGTH: Final = 200
PASS_SECONDS: Final = 60.0  # in which a worker's thread begins mails by one time
# Longer than that and any mail takes: SMTP's eight steps may each take the backend's 20 s.
CLAIM: Final = dt.timedelta(minutes=10)
PAUSE: Final = dt.timedelta(minutes=1)  # before the second try; doubled before each further one
LONGEST_PAUSE: Final = dt.timedelta(hours=1)
GIVE_UP: Final = dt.timedelta(days=2)  # after it was queued: what it says is no news any more
KEEP: Final = dt.timedelta(days=180)  # also how long `once` is remembered
BATCH: Final = 1000  # rows deleted in one transaction
SECONDS: Final = 2.0  # between two looks at what is due
_ABOUT_ONE_MAIL: Final = (SMTPRecipientsRefused, SMTPSenderRefused, SMTPDataError)  # the next may go


def queue(
    once: str,
    template: str,
    context: Mapping[str, object],
    to: Iterable[str],
    now: dt.datetime,
    *,
    organization: Organization | None = None,
    about: Sequence[object] = (),
) -> None:
    """Write `emails/<template>_subject.txt` and `emails/<template>.txt` to each address, in the caller's
    transaction; nothing if this `once` (at most 200 characters) has been queued before, to whomever.

    `context` holds what the templates need and never a secret; the portal's name and URL are added. `about`
    is JSON for `rewrite_waiting`.
    """
    if len(once) > ONCE_LENGTH:
        raise ValueError("What a mail is about has a name of at most 200 characters.")
    if Mail.objects.filter(once=once).exists():
        return
    subject, text = _written(template, context)
    Mail.objects.bulk_create(
        [
            Mail(
                once=once,
                to=address,
                organization=organization,
                subject=subject,
                text=text,
                about=list(about),
                queued_at=now,
                next_try_at=now,
            )
            for address in sorted(set(to))
        ],
        ignore_conflicts=True,  # another worker was at it in the same moment
    )


def rewrite_waiting(
    prefix: str, template: str, write: Callable[[Mail], tuple[Mapping[str, object], Sequence[object]] | None]
) -> None:
    """Bring mails up to date that still wait and whose `once` begins with `prefix`. `write` returns a context
    and `about` as for `queue`, or None where nothing is left to say: the mail is deleted. An `about` that is
    the mail's leaves it as it is."""
    for mail in Mail.objects.filter(once__startswith=prefix).exclude(next_try_at=None).order_by("pk"):
        waiting = Mail.objects.filter(pk=mail.pk).exclude(next_try_at=None)
        match write(mail):
            case None:
                waiting.delete()
            case context, about if list(about) != mail.about:
                subject, text = _written(template, context)
                waiting.update(subject=subject, text=text, about=list(about))


def recipients(
    organization: Organization,
    roles: Iterable[Role],
    also: Iterable[User | None] = (),
    *,
    but: int | None = None,
) -> list[str]:
    """The verified address of each active member who has one of the roles or is in `also`; of all `but` the
    user with this primary key."""
    wanted = Q(user__memberships__role__in=[role.value for role in roles])
    wanted |= Q(user__in=[person.pk for person in also if person is not None])
    rows = EmailAddress.objects.filter(
        wanted, user__memberships__organization=organization, user__is_active=True, verified=True
    ).exclude(user=but)
    found: dict[int, str] = {}
    for person, address in rows.order_by("user_id", "-primary", "pk").values_list("user_id", "email"):
        found.setdefault(person, address)
    return sorted(found.values())


def send_due(now: dt.datetime, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Send what is due at `now`; how many mails went. `stop` is asked before each, and must end the pass
    while what it has claimed by that time is still nobody else's.

    A mail that the server refuses waits or is given up, and others follow; where the server cannot be reached
    (OSError) the pass ends with that error.
    """
    sent = 0
    server = mailers.default
    try:
        while not stop() and (mail := _claim(now)) is not None:
            sent += _send(mail, server, now)
    finally:
        with suppress(OSError):
            server.close()
    return sent


def keep_sending(stop: threading.Event) -> None:
    """Send what is due until `stop` is set: a worker's thread, so that a slow mail server delays nothing."""
    failures = 0
    until = 0.0

    def is_over() -> bool:
        return stop.is_set() or monotonic() >= until

    while not stop.is_set():
        until = monotonic() + PASS_SECONDS
        try:
            send_due(timezone.now(), stop=is_over)
            failures = 0
        except Exception as error:
            if not failures:
                logger.error("Mails wait: %s", type(error).__name__)
            failures += 1
        finally:
            connections.close_all()
        stop.wait(min(SECONDS * 2 ** min(failures, 10), PAUSE.total_seconds()))


def prune(now: dt.datetime, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete mails queued longer ago than KEEP, in small transactions; how many. `stop` is asked
    before each."""
    deleted = 0
    while not stop():
        oldest = (
            Mail.objects.filter(queued_at__lt=now - KEEP).order_by("queued_at", "pk").values("pk")[:BATCH]
        )
        count, _ = Mail.objects.filter(pk__in=oldest).delete()
        deleted += count
        if count < BATCH:
            break
    return deleted


def given_up(since: dt.datetime) -> int:
    """How many of the mails queued since then could not be sent and will not be tried again."""
    return Mail.objects.filter(queued_at__gte=since, next_try_at=None, sent_at=None).count()


def message_id(mail: Mail) -> str:
    """The same at every try, and of no other mail."""
    return f"<mail-{mail.pk}-{mail.queued_at.timestamp():.6f}@{settings.PORTAL_HOST or 'localhost'}>"


def _claim(now: dt.datetime) -> Mail | None:
    """The next mail that is due, put off for everybody else while it is being sent."""
    with transaction.atomic():
        due = Mail.objects.filter(next_try_at__lte=now).order_by("next_try_at", "pk")
        # On SQLite nothing is skipped: there a transaction that may write has the database to itself.
        mail = due.select_for_update(skip_locked=True).first()
        if mail is not None:
            mail.next_try_at, mail.tries = now + CLAIM, mail.tries + 1
            mail.save(update_fields=["next_try_at", "tries"])
    return mail


def _send(mail: Mail, server: BaseEmailBackend, now: dt.datetime) -> bool:
    """Send it and note what came of it; whether it went. Raises OSError if the server is out of reach."""
    try:
        message = EmailMessage(
            subject=mail.subject,
            body=mail.text,
            to=[mail.to],
            # RFC 3834: whoever is away need not tell us.
            headers={"Message-ID": message_id(mail), "Auto-Submitted": "auto-generated"},
        )
        server.open()
        server.send_messages([message])
    except Exception as error:
        _failed(mail, error, now)
        if isinstance(error, OSError) and not isinstance(error, _ABOUT_ONE_MAIL):
            raise
        return False
    _note(mail, sent_at=now, next_try_at=None, error="", text="")
    return True


def _failed(mail: Mail, error: Exception, now: dt.datetime) -> None:
    said = _said(error)
    if _is_final(error) or now - mail.queued_at >= GIVE_UP:
        _note(mail, next_try_at=None, error=said, text="")
        logger.warning("Mail %s is given up: %s", mail.pk, said)
    else:
        pause = min(PAUSE * 2 ** min(mail.tries - 1, 10), LONGEST_PAUSE)
        _note(mail, next_try_at=now + pause, error=said)


def _note(mail: Mail, **fields: object) -> None:
    """Of a row that may be gone: its writer may have taken it back while it was on its way."""
    Mail.objects.filter(pk=mail.pk).update(**fields)


def _is_final(error: Exception) -> bool:
    """Will no further try help? Such is an answer of 5yz (RFC 5321, 4.2.1) about the recipient, and a mail
    that cannot even be put together."""
    if isinstance(error, SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return not isinstance(error, OSError)  # SMTP's errors are OSErrors too


def _said(error: Exception) -> str:
    """The error's name and the server's code, for staff. Not its words, which may quote addresses."""
    codes: list[int] = []
    if isinstance(error, SMTPRecipientsRefused):
        codes = sorted({code for code, _ in error.recipients.values()})
    elif isinstance(error, SMTPResponseException):
        codes = [error.smtp_code]
    return " ".join([type(error).__name__, *map(str, codes)])


def _written(template: str, context: Mapping[str, object]) -> tuple[str, str]:
    """Subject and text."""
    names = {"portal_name": settings.PORTAL_NAME, "portal_url": settings.PORTAL_URL, **context}
    subject = " ".join(_render(f"emails/{template}_subject.txt", names).split())
    return subject[:SUBJECT_LENGTH], _render(f"emails/{template}.txt", names).strip() + "\n"


def _render(template: str, context: Mapping[str, object]) -> str:
    """A text: nothing is escaped; what no database or mail can hold is left out."""
    text = Engine.get_default().get_template(template).render(Context(dict(context), autoescape=False))
    return text.replace("\x00", "").encode(errors="replace").decode()
