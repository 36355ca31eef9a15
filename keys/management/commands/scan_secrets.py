"""`scan_secrets`: this portal's keys in files, folders and git histories; exit 0 only if there are none."""

import json
import os
import sys
import unicodedata
from collections.abc import Collection
from itertools import batched
from typing import Any, NamedTuple

from django.core.management.base import CommandParser
from django.utils import timezone
from tqdm import tqdm

from keys import tokens
from keys.management.base import REFUSED, PortalCommand, refuse
from keys.models import Key, Secret
from keys.prefixes import known_prefixes
from keys.scanning import Hit, Result, Skipped, scan

MAX_PROCESSES = 64
_SHOWN = 20  # things that were not read


class Known(NamedTuple):
    """What this portal knows of a secret that was found."""

    key: Key
    state: str
    works: bool


class Command(PortalCommand):
    help = "Find this portal's keys in files, folders and the history of git repositories."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("paths", nargs="+", metavar="PATH")
        parser.add_argument("--no-history", action="store_true", help="only what is in the files now")
        parser.add_argument("--working", action="store_true", help="only keys that work at this moment")
        parser.add_argument(
            "--processes", type=int, default=0, metavar="N", help="by default one for each processor"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(
        self,
        *args: Any,
        paths: list[str],
        no_history: bool,
        working: bool,
        processes: int,
        json: bool,
        **options: Any,
    ) -> None:
        if not 0 <= processes <= MAX_PROCESSES:
            refuse(f"--processes is between 1 and {MAX_PROCESSES}.")
        for path in paths:
            if "\0" in path or not os.path.exists(path):  # noqa: PTH110  # Path raises for NUL
                refuse(f"There is no {shown(path)}.")
        result = _scan(paths, processes, history=not no_history)
        known = _known({hit.secret for hit in result.hits})
        if working:
            result.hits = [hit for hit in result.hits if hit.secret in known and known[hit.secret].works]
        result.hits.sort(key=lambda hit: (hit.place, hit.line))
        if json:
            self.stdout.write(_as_json(result, known))
        else:
            for hit in result.hits:
                self.stdout.write(f"{shown(hit.place)}:{hit.line}: {_words(hit, known)}")
        self._tell_skipped(result.skipped)
        self._end(result)

    def _tell_skipped(self, skipped: list[Skipped]) -> None:
        for each in skipped[:_SHOWN]:
            self.say(f"Not read: {shown(each.path)} ({each.why}).")
        if len(skipped) > _SHOWN:
            self.say(f"Not read: {len(skipped) - _SHOWN} more; --json has them all.")

    def _end(self, result: Result) -> None:
        read = f"{_count(result.files, 'file')} and {_count(result.objects, 'object')} of git history"
        looked = f"{read} ({result.size / 1e6:,.1f} MB)"
        if result.hits:
            keys = len({hit.secret for hit in result.hits})
            places = _count(len(result.hits), "place")
            refuse(f"Found {_count(keys, 'key')} in {places}, in {looked}.", REFUSED)
        unread = [each for each in result.skipped if not each.why.startswith("a link")]
        if unread:
            refuse(f"Found no key in {looked}, but {_count(len(unread), 'path')} could not be read.")
        self.say(f"Found no key in {looked}.")


def _scan(paths: list[str], processes: int, *, history: bool) -> Result:
    prefixes = [prefix.encode() for prefix in known_prefixes()]
    whole = Result()
    bar = tqdm(unit="B", unit_scale=True, disable=None, file=sys.stderr, leave=False)
    with bar:
        for result in scan(paths, prefixes, processes=processes, history=history):
            whole.add(result)
            bar.update(result.size)
    return whole


def _known(found: Collection[str]) -> dict[str, Known]:
    """The keys of those that this portal has issued, by what was found."""
    now = timezone.now()
    digests = {tokens.digest(secret): secret for secret in found}
    known = {}
    for some in batched(digests, 500):
        rows = Secret.objects.filter(digest__in=some).select_related("key__organization")
        for row in rows:
            state = "stopped" if not row.works_at(now) else str(row.key.state_at(now))
            state = "a canary" if row.key.canary else state
            works = state in ("active", "expiring") and not row.key.organization.suspended
            known[digests[bytes(row.digest)]] = Known(row.key, state, works)
    return known


def display(secret: str) -> str:
    """How people recognize it, never the whole: `lk_live_…9aXc`."""
    parsed = tokens.parse(secret)
    assert parsed is not None
    return f"{parsed.prefix}_{parsed.environment}_…{parsed.hint}"


def _words(hit: Hit, known: dict[str, Known]) -> str:
    found = known.get(hit.secret)
    if found is None:
        about = "well formed, but no key of this portal"
    else:
        key = found.key
        about = f'{key.public_id} "{key.name}" of {key.organization.slug}, {found.state}'
    return f"{display(hit.secret)} {about}" + (" (in a binary file)" if hit.binary else "")


def _as_json(result: Result, known: dict[str, Known]) -> str:
    found = []
    for hit in result.hits:
        facts = known.get(hit.secret)
        found.append(
            {
                "path": shown(hit.place),
                "line": hit.line,
                "binary": hit.binary,
                "secret": display(hit.secret),
                "key": facts and facts.key.public_id,
                "organization": facts and facts.key.organization.slug,
                "state": facts and facts.state,
            }
        )
    skipped = [{"path": shown(each.path), "why": each.why} for each in result.skipped]
    counts = {"files": result.files, "objects": result.objects, "bytes": result.size}
    return json.dumps({"found": found, "not_read": skipped, **counts}, indent=2)


def shown(path: str) -> str:
    """A path as it can be printed: no key, no control character, no byte that is not text."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    text = "".join(
        character if unicodedata.category(character)[0] != "C" else ascii(character)[1:-1]
        for character in text
    )
    return tokens.redact(text)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
