"""Until when everything is counted, whose journal that waits for, and giving up on one that will never come.

It alone says what `complete_through` is. It reads rows, never a journal's content, and nothing here counts
anything; a host that is given up on is named, audited, and welcome if its journal turns up after all.
"""

import datetime as dt
import os
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Now

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict, Invalid
from keys.lifecycle.rules import clean_text
from keys.models import Process
from keys.presence import lock_is_free
from usage import ledger
from usage.journal import Journal
from usage.models import Spool, Watermark
from usage.records import HOST_LENGTH
from usage.rollups import moment
from usage.room import SUFFIX

_REASON_LENGTH = 200


def this_host() -> str:
    return socket.gethostname()[:HOST_LENGTH]


def complete_through() -> dt.datetime | None:
    """Every call answered before this moment is in the roll-ups; None if there was never a journal.

    It is the least that any journal which is neither finished nor given up on has reached: a pass gives each
    that it lists a row before it reads any. A process that serves and has no such row yet, on whatever host,
    counts from its start. A journal that nobody can read stops every watermark. A clock that was set back
    does not move it back: what such a process writes is late.
    """
    stored, found = _read()
    return max((at for at in (stored, found) if at is not None), default=None)


def _read() -> tuple[dt.datetime | None, dt.datetime | None]:
    """How far everything was counted when last written down, and is now. One query while anybody serves."""
    was, now = Value(True), Value(False)
    rows = Watermark.objects.values_list("through", was).union(
        _waiting().values_list(Coalesce("watermark", "started_at"), now),
        _unannounced().values_list("started_at", now),
    )
    moments: dict[bool, list[dt.datetime]] = {True: [], False: []}
    for at, is_stored in rows:
        moments[bool(is_stored)].append(at)
    found = min(moments[False], default=None)
    if found is None:
        found = Spool.objects.aggregate(at=Max("finished_at"))["at"]
    return next(iter(moments[True]), None), found


def columns() -> list[Subquery]:
    """What `complete_through` asks of the database, to be read beside one row of another query; `told` makes
    the answer of it."""
    waiting = _waiting().annotate(at=Coalesce("watermark", "started_at")).order_by("at").values("at")
    finished = Spool.objects.exclude(finished_at=None).order_by("-finished_at").values("finished_at")
    unannounced = _unannounced().order_by("started_at").values("started_at")
    stored = Watermark.objects.values("through")
    return [Subquery(rows[:1]) for rows in (stored, waiting, unannounced, finished)]


def told(
    stored: dt.datetime | None,
    waiting: dt.datetime | None,
    unannounced: dt.datetime | None,
    finished: dt.datetime | None,
) -> dt.datetime | None:
    """`complete_through`, from `columns`."""
    found = min((at for at in (waiting, unannounced) if at is not None), default=finished)
    return max((at for at in (stored, found) if at is not None), default=None)


def store() -> None:
    """Write down how far everything is counted, so that it never goes back; the last act of each pass."""
    stored, found = _read()
    if found is None or (stored is not None and stored >= found):
        return
    Watermark.objects.get_or_create(pk=1, defaults={"through": found})
    Watermark.objects.filter(pk=1, through__lt=found).update(through=found)


def announce(journal: Journal) -> None:
    """Give this process's journal its row, if it was ever opened: somebody knows of it then, though the
    process leaves the list of those that serve before any pass has seen it."""
    if journal.started:
        register(journal.spool, this_host(), os.getpid(), moment(journal.started))


def register(spool: str, host: str, pid: int, started_at: dt.datetime) -> Spool:
    """A journal's row, made if there is none."""

    def begun() -> dt.datetime:
        # Its process opens it before it is on the list of those that serve, and answers nothing till then;
        # from its place on the list on it has been waited for, and that must not go back.
        joined = Process.objects.filter(pk=spool).values_list("started_at", flat=True).first()
        return max(started_at, joined or started_at)

    defaults: dict[str, Any] = {
        "host": host,
        "pid": pid,
        "started_at": begun,
    }  # which Django calls if need be
    row, _ = Spool.objects.get_or_create(id=spool, defaults=defaults)
    return row


def _waiting() -> QuerySet[Spool]:
    """Journals that `complete_through` waits for."""
    return Spool.objects.filter(finished_at=None, retired_at=None)


def _unannounced() -> QuerySet[Process]:
    """Processes that serve, or did, whose journal has no row."""
    return Process.objects.filter(~Exists(Spool.objects.filter(pk=OuterRef("pk"))))


def unannounced() -> set[str]:
    """The ids of processes that must not be forgotten: a journal of theirs may be somewhere, and nothing
    else tells of it. Of a process of this host the folder says whether there is one."""
    return {
        process.pk
        for process in _unannounced()
        if process.host != this_host() or any(Path(process.lock_path).parent.glob(f"{process.pk}.*{SUFFIX}"))
    }


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose journal everything waits for, and since when."""

    host: str
    pid: int
    since: dt.datetime


def holder() -> Holder | None:
    """The one that is furthest behind; None when nothing is waited for."""
    spool = _waiting().order_by(Coalesce("watermark", "started_at"), "id").first()
    process = _unannounced().order_by("started_at", "id").first()
    found = []
    if spool is not None:
        found.append(Holder(spool.host, spool.pid, spool.watermark or spool.started_at))
    if process is not None:
        found.append(Holder(process.host, process.pid, process.started_at))
    return min(found, key=lambda holder: holder.since, default=None)


# --- giving up on a host ---------------------------------------------------------------------------


def lost(host: str) -> list[Spool]:
    """The journals of `host` that nobody can drain, some of them without a row yet; nothing is written.

    Raises Conflict for a host that nobody knows, one with a process that is alive, or one with nothing to
    give up.
    """
    processes = list(Process.objects.filter(host=host))
    if not processes and not Spool.objects.filter(host=host).exists():
        raise Conflict(f"Nobody knows a host {_shown(host)}: none of its journals was ever seen.")
    if alive := _alive(host, processes):
        raise Conflict(
            f"{host} is alive: its process {alive.pid} serves. Stop it, and its journals are drained."
        )
    unfinished = list(_waiting().filter(host=host).order_by("started_at", "id"))
    known = {spool.pk for spool in Spool.objects.filter(pk__in=[process.pk for process in processes])}
    unfinished += [
        Spool(id=process.pk, host=host, pid=process.pid, started_at=process.started_at)
        for process in processes
        if process.pk not in known
    ]
    if not unfinished:
        raise Conflict(
            f"There is nothing to give up: every journal of {host} is drained, or given up already."
        )
    found = [spool for spool in unfinished if not _is_here(spool.pk)]
    if not found:
        raise Conflict(f"The journals of {host} are here, in USAGE_JOURNAL_DIR; `drain_usage` counts them.")
    return found


def clean_reason(text: str) -> str:
    """The reason as it is kept. Raises Invalid."""
    return clean_text(text, field="reason", label="The reason", maximum=_REASON_LENGTH)


def clean_host(text: str) -> str:
    """A host's name as it is looked for. Raises Invalid."""
    if not text or len(text) > HOST_LENGTH or not text.isprintable():
        raise Invalid("This is not the name of a host.", "host")
    return text


def retire(host: str, reason: str, actor: Actor, *, now: dt.datetime) -> list[Spool]:
    """Give up on `host`, for good: its journals are waited for no more. Returns them.

    Raises Invalid for a reason that cannot be kept, and Conflict as `lost` does.
    """
    reason, host = clean_reason(reason), clean_host(host)
    with transaction.atomic():
        found = lost(host)
        for spool in found:
            register(spool.pk, spool.host, spool.pid, spool.started_at)
        ids = [spool.pk for spool in found]
        chosen = list(_waiting().select_for_update().filter(pk__in=ids).order_by("started_at", "id"))
        if not chosen:
            raise Conflict(f"There is nothing to give up: somebody else has just settled {host}.")
        ids = [spool.pk for spool in chosen]
        Spool.objects.filter(pk__in=ids).update(retired_at=now, retired_reason=reason)
        Process.objects.filter(pk__in=ids).delete()
        for pk in ids:
            ledger.settle_spool(pk)
        data = {"host": host, "spools": ids, "since": _since(chosen).isoformat(), "reason": reason}
        audit.append("spool.retired", actor=actor, at=now, data=data)
    store()
    return chosen


def _since(spools: Collection[Spool]) -> dt.datetime:
    """From when on calls may be missing."""
    return min(spool.watermark or spool.started_at for spool in spools)


def _alive(host: str, processes: list[Process]) -> Process | None:
    """One of these that answers calls, or may."""
    serving = set(Process.objects.filter(host=host, serves_until__gt=Now()).values_list("pk", flat=True))
    here = host == this_host()
    for process in processes:
        lock = Path(process.lock_path)
        if here and lock_is_free(lock):
            continue
        if process.pk in serving or (here and lock.exists()):
            return process
    return None


def _is_here(spool: str) -> bool:
    return any(Path(settings.USAGE_JOURNAL_DIR).glob(f"{spool}.*{SUFFIX}"))


def _shown(host: str) -> str:
    return repr(host if len(host) <= 64 else f"{host[:63]}…")
