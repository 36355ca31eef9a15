"""`worker`: the housekeeping that runs beside the server; safe to run several."""

import datetime as dt
import signal
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db import connections
from django.utils import timezone

from keys import lifecycle, presence
from keys.management.base import PortalCommand
from portal import alerts, canaries, digest, expiry, folder, notices, outbox, serving, trials
from portal.chores import Chore
from usage import (
    breaks,
    kept,
    ledger,
    organization_rollups,
    refusal_log,
    reports,
    retention,
    watch,
    watermark,
)
from usage.billing import subscriptions
from usage.drain import Drain
from usage.trials import forget as forget_trials

DRAIN_SECONDS = 1.0
FORGET_SECONDS = 30.0
PRUNE_SECONDS = 60.0
PLAN_SECONDS = 30.0
CANARY_SECONDS = 5.0
REMIND_SECONDS = 60.0
ALERT_SECONDS = 300.0
WATCH_SECONDS = 60.0
DIGEST_SECONDS = 900.0
TRIAL_SECONDS = 60.0
CLEAR_SECONDS = 3600.0
SUMS_SECONDS = 86_400.0
RETIRE_SECONDS = 3600.0
VISIT_SECONDS = 60.0
LAST_MAIL_SECONDS = 5.0  # what is not finished then is sent again, by whoever is next


class Command(PortalCommand):
    help = "Drain journals, send mails, forget dead processes, clear what is old; until it is told to stop."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--parent", type=int, metavar="PID", help="end when this process does")

    def handle(self, *args: Any, **options: Any) -> None:
        folder.mark_in_use()  # until this process ends
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        if options["parent"] is not None:
            serving.end_with_parent(options["parent"], signal.SIGTERM)
        drain, sweep = Drain(), watch.Sweep()
        draining = Chore("The worker", DRAIN_SECONDS, lambda: drain.once(timezone.now(), stop=stop.is_set))
        chores = _chores(sweep, stop)
        sender = threading.Thread(target=outbox.keep_sending, args=(stop,), name="mails", daemon=True)
        sender.start()
        while not stop.is_set():
            draining.turn()
            for chore in chores:
                if not stop.is_set():
                    chore.turn(draining.trouble)
            connections.close_all()
            stop.wait(DRAIN_SECONDS)
        sender.join(LAST_MAIL_SECONDS)


def _chores(sweep: watch.Sweep, stop: threading.Event) -> list[Chore]:
    """What is done besides the drain, in this order."""
    is_over = breaks.with_breaks(stop.is_set)

    def timed(act: Callable[[dt.datetime], object]) -> Callable[[], object]:
        return lambda: act(timezone.now())

    return [
        Chore("Forgetting dead processes", FORGET_SECONDS, forget_the_dead),
        Chore("Pruning journals", PRUNE_SECONDS, prune_journals),
        Chore("Clearing sessions", CLEAR_SECONDS, clear_sessions),
        Chore("Pruning refusals", CLEAR_SECONDS, timed(partial(refusal_log.prune, stop=is_over))),
        Chore("Retention", CLEAR_SECONDS, partial(retention.once, stop=is_over)),
        Chore("Checking sums", SUMS_SECONDS, timed(organization_rollups.mend_recent)),
        Chore("Ringing for canaries", CANARY_SECONDS, timed(canaries.ring)),
        Chore("Changing plans", PLAN_SECONDS, timed(subscriptions.apply_due)),
        Chore("Forgetting quotas of the past", CLEAR_SECONDS, timed(ledger.forget_the_past)),
        Chore("The weekly digest", DIGEST_SECONDS, timed(digest.send_due)),
        Chore("Looking at keys", WATCH_SECONDS, timed(partial(sweep.go_on, stop=is_over))),
        Chore("Pruning mails", CLEAR_SECONDS, timed(partial(outbox.prune, stop=is_over))),
        Chore("Retiring idle keys", RETIRE_SECONDS, retire_idle_keys),
        Chore("Ending visits", VISIT_SECONDS, lambda: lifecycle.end_visits(now=timezone.now())),
        Chore("Forgetting invitations", CLEAR_SECONDS, lambda: forget_invitations(is_over)),
        Chore("Telling of billing alerts", ALERT_SECONDS, timed(partial(alerts.tell, stop=is_over))),
        Chore("Reminding of expiries", REMIND_SECONDS, timed(expiry.remind)),
        Chore("Forgetting reminders", CLEAR_SECONDS, timed(expiry.forget)),
        Chore("Telling of retirements", REMIND_SECONDS, timed(notices.tell_of_retirements)),
        Chore("Telling of decisions", REMIND_SECONDS, timed(notices.tell_of_decisions)),
        Chore("Ending trials", TRIAL_SECONDS, timed(partial(trials.end_due, stop=is_over))),
        Chore("Forgetting trials", CLEAR_SECONDS, timed(forget_trials)),
    ]


def forget_the_dead() -> None:
    """Take dead processes off the list of those that serve, once rows tell of their journals."""
    presence.forget_the_dead(spare=watermark.unannounced())


def prune_journals() -> None:
    """Delete drained journals that were kept long enough."""
    kept.prune(settings.USAGE_JOURNAL_DIR, days=settings.USAGE_JOURNAL_KEEP_DAYS, now=timezone.now())


def forget_invitations(is_over: Callable[[], bool]) -> None:
    """Delete invitations that ended long ago."""
    lifecycle.forget_invitations(now=timezone.now(), stop=is_over)


def clear_sessions() -> None:
    """Delete sessions that have expired."""
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()


def retire_idle_keys() -> None:
    """Announce and carry out the retirement of keys that nobody uses, as far as use is known."""
    now = timezone.now()
    lifecycle.retire_idle(reports.key_last_used, through=reports.complete_through() or now, now=now)
