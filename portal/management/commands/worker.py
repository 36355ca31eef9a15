"""`worker`: the housekeeping that runs beside the server; safe to run several."""

import logging
import signal
import threading
import time
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
from portal import alerts, canaries, digest, expiry, folder, outbox, serving, trials
from usage import kept, ledger, refusal_log, reports, retention, watch, watermark
from usage.billing import subscriptions
from usage.drain import Drain
from usage.trials import forget as forget_trials

logger = logging.getLogger(__name__)

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
RETIRE_SECONDS = 3600.0
LONGEST_PAUSE = 15.0
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
        chores: list[tuple[float, Callable[[], object]]] = [
            (FORGET_SECONDS, forget_the_dead),
            (PRUNE_SECONDS, prune_journals),
            (CLEAR_SECONDS, clear_sessions),
            (CLEAR_SECONDS, lambda: refusal_log.prune(timezone.now(), stop=stop.is_set)),
            (CLEAR_SECONDS, partial(retention.once, stop=stop.is_set)),
            (CANARY_SECONDS, lambda: canaries.ring(timezone.now())),
            (PLAN_SECONDS, lambda: subscriptions.apply_due(timezone.now())),
            (CLEAR_SECONDS, lambda: ledger.forget_the_past(timezone.now())),
            (DIGEST_SECONDS, lambda: digest.send_due(timezone.now())),
            (WATCH_SECONDS, lambda: sweep.go_on(timezone.now(), stop=stop.is_set)),
            (CLEAR_SECONDS, lambda: outbox.prune(timezone.now(), stop=stop.is_set)),
            (RETIRE_SECONDS, retire_idle_keys),
            (ALERT_SECONDS, lambda: alerts.tell(timezone.now(), stop=stop.is_set)),
            (REMIND_SECONDS, lambda: expiry.remind(timezone.now())),
            (CLEAR_SECONDS, lambda: expiry.forget(timezone.now())),
            (TRIAL_SECONDS, lambda: trials.end_due(timezone.now(), stop=stop.is_set)),
            (CLEAR_SECONDS, lambda: forget_trials(timezone.now())),
        ]
        sender = threading.Thread(target=outbox.keep_sending, args=(stop,), name="mails", daemon=True)
        sender.start()
        due = [0.0] * len(chores)
        failures = 0
        while not stop.is_set():
            try:
                drain.once(timezone.now(), stop=stop.is_set)
                for index, (seconds, chore) in enumerate(chores):
                    if time.monotonic() >= due[index] and not stop.is_set():
                        chore()
                        due[index] = time.monotonic() + seconds
                if failures:
                    logger.info("The worker works again.")
                failures = 0
            except Exception as error:
                if not failures:
                    logger.error("The worker waits: %s: %s", type(error).__name__, _first_line(error))
                failures += 1
            finally:
                connections.close_all()
            stop.wait(min(DRAIN_SECONDS * 2 ** min(failures, 10), LONGEST_PAUSE))
        sender.join(LAST_MAIL_SECONDS)


def forget_the_dead() -> None:
    """Take dead processes off the list of those that serve, once rows tell of their journals."""
    presence.forget_the_dead(spare=watermark.unannounced())


def prune_journals() -> None:
    """Delete drained journals that were kept long enough."""
    kept.prune(settings.USAGE_JOURNAL_DIR, days=settings.USAGE_JOURNAL_KEEP_DAYS, now=timezone.now())


def clear_sessions() -> None:
    """Delete sessions that have expired."""
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()


def retire_idle_keys() -> None:
    """Announce and carry out the retirement of keys that nobody uses, as far as use is known."""
    now = timezone.now()
    lifecycle.retire_idle(reports.key_last_used, through=reports.complete_through() or now, now=now)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
