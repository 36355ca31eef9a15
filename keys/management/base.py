"""What every command of the portal shares: how it fails, and how it reads durations and secrets.

A command that cannot do its work says why in one sentence on stderr: exit 2 for bad arguments, 1 for a
reason of state, and never a usage dump or a traceback. Nothing here writes to the database.
"""

import argparse
import datetime as dt
import errno
import getpass
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Never

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    SystemCheckError,
    handle_default_options,
)
from django.db import DatabaseError, InterfaceError, connections

from keys import lifecycle, tokens
from keys.models import Key, Organization, Secret

BAD_ARGUMENT = 2
REFUSED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE

MAX_DURATION = dt.timedelta(days=36_500)
_DURATION = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class PortalCommand(BaseCommand):
    """A command that fails in one sentence. Subclasses are written as Django's own."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # No guessing from abbreviations: `--org` may mean something else in the next version.
        return super().create_parser(prog_name, subcommand, allow_abbrev=False, **kwargs)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run, and exit as the module's first paragraph says."""
        status = 0
        try:
            options = vars(self._parse(argv))
            self.execute(*options.pop("args", ()), **options)
            self.stdout.flush()
        except SystemCheckError as error:
            status = error.returncode
            self.stderr.write(str(error), lambda text: text)
        except CommandError as error:
            status = error.returncode
            # A secret is easily pasted where its key's id belongs, and what is said here is kept in logs.
            self.stderr.write(tokens.redact(str(error)))
        except KeyboardInterrupt:
            status = INTERRUPTED
        except BrokenPipeError:  # whoever read has read enough
            status = BROKEN_PIPE
        except OSError as error:
            status = REFUSED
            self.stderr.write(tokens.redact(said(error)))
        finally:
            _release_stdout()
            with suppress(ImproperlyConfigured):
                connections.close_all()
        if status:
            sys.exit(status)

    def _parse(self, argv: list[str]) -> argparse.Namespace:
        parser = self.create_parser(argv[0], argv[1])
        try:
            options = parser.parse_args(argv[2:])
        except CommandError as error:
            refuse(sentence(str(error).removeprefix("Error: ")))
        handle_default_options(options)
        return options

    def execute(self, *args: Any, **options: Any) -> str | None:
        """As Django's; what the lifecycle and the database refuse becomes a CommandError."""
        try:
            return super().execute(*args, **options)
        except lifecycle.Invalid as error:
            raise CommandError(error.sentence, returncode=BAD_ARGUMENT) from error
        except lifecycle.Refused as error:
            raise CommandError(error.sentence, returncode=REFUSED) from error
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(_database_sentence(error), returncode=REFUSED) from error

    def say(self, text: str) -> None:
        """A fact for the person at the terminal; stdout is for what programs read."""
        self.stderr.write(text, lambda shown: shown)

    def put_secret(self, issued: lifecycle.Issued, facts: dict[str, Any] | None) -> None:
        """The new secret on stdout, alone or (with `facts`) as one JSON object. It is shown only here."""
        text = issued.plaintext if facts is None else json.dumps(facts | {"secret": issued.plaintext})
        try:
            if sys.stdout is None:  # closed by whoever began this process
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self.stdout.write(text)
            self.stdout.flush()
        except OSError as error:
            raise CommandError(
                f"The secret of {issued.key.public_id} could not be written ({error.strerror}) and cannot be "
                "shown again; rotate the key with --overlap 0.",
                returncode=REFUSED,
            ) from None


def refuse(text: str, status: int = BAD_ARGUMENT) -> Never:
    """End the command with one sentence."""
    raise CommandError(text, returncode=status)


def sentence(text: str) -> str:
    """argparse's message as one line that begins with a capital and ends with a full stop."""
    line = " ".join(text.split())
    line = line[:1].upper() + line[1:]
    return line if line.endswith((".", "!", "?")) else f"{line}."


def said(error: OSError) -> str:
    """An error of the operating system in one sentence."""
    where = f"{error.filename}: " if error.filename else ""
    return sentence(f"{where}{error.strerror or error}")


def _database_sentence(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    if "no such table" in text or ("relation" in text and "does not exist" in text):
        return "The database has not been set up; run `manage.py migrate` first."
    return sentence(f"The database refused or did not answer: {text[:200]}")


def _release_stdout() -> None:
    """After a closed pipe, the interpreter's own flush at exit would fail once more, with a traceback."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- arguments ------------------------------------------------------------------------------------


def duration(text: str) -> dt.timedelta:
    """`90d`, `24h`, `30m`, `1w` or `0`, as an argparse type."""
    if text == "0":
        return dt.timedelta(0)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a duration; write it as 90d, 24h, 30m or 1w")
    value = dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
    if value > MAX_DURATION:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is longer than a hundred years")
    return value


def duration_or_never(text: str) -> dt.timedelta | None:
    """A duration or `never` (None), as an argparse type."""
    try:
        return None if text == "never" else duration(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error} (or never)") from None


def add_key_arguments(parser: CommandParser) -> None:
    """What `create_key` and `import_key` ask about a new key."""
    parser.add_argument("--organization", required=True, metavar="SLUG")
    parser.add_argument("--name", required=True)
    parser.add_argument("--scope", action="append", default=[], metavar="S", dest="scopes")
    parser.add_argument("--environment", choices=tokens.ENVIRONMENTS, default="live")
    parser.add_argument(
        "--expires-in",
        type=duration_or_never,
        default=lifecycle.DEFAULT,
        metavar="90d|never",
        help="by default what the organization's policy says, 90 days if it says nothing",
    )
    parser.add_argument("--network", action="append", default=[], metavar="CIDR", dest="networks")
    parser.add_argument("--rate", action="append", default=[], metavar="N/second|minute|hour", dest="rates")
    parser.add_argument("--quota", action="append", default=[], metavar="N[ METER]/day|month", dest="quotas")


def key_fields(options: dict[str, Any], now: dt.datetime) -> dict[str, Any]:
    """The lifecycle's arguments from what `add_key_arguments` has read."""
    expires = options["expires_in"]
    return {
        "name": options["name"],
        "environment": options["environment"],
        "scopes": options["scopes"],
        "networks": options["networks"],
        "rates": options["rates"],
        "quotas": options["quotas"],
        "expires_at": now + expires if isinstance(expires, dt.timedelta) else expires,
    }


def find_organization(slug: str) -> Organization:
    """The organization of this slug; without one, the argument is bad."""
    found = (
        Organization.objects.select_related("policy").filter(slug=slug).first() if slug.isascii() else None
    )
    if found is None:
        refuse(f"There is no organization {_shown(slug)}.")
    return found


def find_key(public_id: str) -> Key:
    """The key of this id; without one, the argument is bad."""
    keys = Key.objects.select_related("organization__policy")
    found = keys.filter(public_id=public_id).first() if public_id.isascii() else None
    if found is None:
        refuse(f"There is no key {_shown(public_id)}; its id looks like key_4kD….")
    return found


def find_secret(presented: bytes) -> Secret:
    """The secret that was presented, whatever its state. The sentence of a refusal never repeats it."""
    try:
        text = presented.decode("utf-8")
    except UnicodeDecodeError:
        refuse("MALFORMED: what was given is not text, so it is no API key.")
    if len(text) > tokens.MAX_LENGTH:
        refuse("MALFORMED: what was given is too long to be an API key.")
    secrets = Secret.objects.select_related("key__organization__policy")
    found = secrets.filter(digest=tokens.digest(text)).first()
    if found is not None:
        return found
    if tokens.parse(text) is None:
        refuse("MALFORMED: this is not an API key of this portal; check for missing characters.")
    refuse("UNKNOWN: this is well formed, but no key of this portal has it.", REFUSED)


def secret_from_stdin() -> bytes:
    """What was piped in, or typed unseen at a terminal, without the line end. At most a few KiB are read."""
    if sys.stdin is None:
        refuse("There is nothing on standard input; pipe the secret in.")
    if sys.stdin.isatty():
        presented = getpass.getpass("Secret: ").encode("utf-8", "surrogateescape")
    else:
        presented = sys.stdin.buffer.read(8 * tokens.MAX_LENGTH)
    presented = presented.strip(b" \t\r\n")
    if not presented:
        refuse("There is nothing on standard input; pipe the secret in.")
    return presented


def _shown(text: str) -> str:
    """An argument in a message: short, printable, in quotes."""
    return repr(text if len(text) <= 64 else f"{text[:63]}…")


# --- words ----------------------------------------------------------------------------------------


def moment(value: dt.datetime) -> str:
    """A time as commands write it: UTC, to the second."""
    return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(value: dt.datetime | None) -> str | None:
    """A time in JSON: ISO 8601 in UTC."""
    return None if value is None else value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_facts(key: Key) -> dict[str, Any]:
    """A key as one JSON object."""
    return {
        "id": key.public_id,
        "name": key.name,
        "organization": key.organization.slug,
        "environment": key.environment,
        "scopes": sorted(scope.name for scope in key.scopes.all()),
        "expires_at": iso(key.expires_at),
    }


def key_sentence(verb: str, key: Key) -> str:
    """`Created key_… "Backend" for acme (live): orders:read, until 2026-09-13 12:00:00 UTC.`"""
    facts = key_facts(key)
    scopes = ", ".join(facts["scopes"]) or "no scopes"
    until = f"until {moment(key.expires_at)}" if key.expires_at else "never expires"
    return (
        f'{verb} {key.public_id} "{key.name}" for {facts["organization"]} ({key.environment}): '
        f"{scopes}; {until}."
    )


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
