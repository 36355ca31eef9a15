"""`inspect_key --secret-stdin`: which key is this? It reads, and never repeats the secret."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys.management.base import PortalCommand, find_secret, moment, secret_from_stdin
from keys.models import Key, Secret
from usage.reports import key_last_used, last_uses


class Command(PortalCommand):
    help = "Say which key a secret belongs to, and in what state it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--secret-stdin", action="store_true", required=True, help="read the secret from stdin"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        secret = find_secret(secret_from_stdin())
        key = secret.key
        use = last_uses([secret.pk]).get(secret.pk)
        by_key = key_last_used(key.organization, [key.pk]).get(key.pk)
        facts = {
            "id": key.public_id,
            "name": key.name,
            "organization": f"{key.organization.slug} ({key.organization.name})",
            "environment": key.environment,
            "state": _state(key),
            "scopes": " ".join(sorted(scope.name for scope in key.scopes.all())) or "none",
            "expires": moment(key.expires_at) if key.expires_at else "never",
            "secret": _secret(secret),
            "last used": "never" if by_key is None else moment(by_key),
            "this secret": "never used" if use is None else f"last used {moment(use.last_used_at)}",
        }
        for name, value in facts.items():
            self.stdout.write(f"{name + ':':<14}{value}")


def _state(key: Key) -> str:
    now = timezone.now()
    state = str(key.state_at(now))
    if key.revoked_at is not None:
        state += f" at {moment(key.revoked_at)}" + (f": {key.revoked_reason}" if key.revoked_reason else "")
    elif key.disabled_at is not None and key.expires_at is not None and key.expires_at <= now:
        state += ", and disabled"
    return f"{state}; its organization is suspended" if key.organization.suspended else state


def _secret(secret: Secret) -> str:
    now = timezone.now()
    if secret.stops_at is None:
        return f"{secret.display}, the current one"
    if secret.works_at(now):
        return f"{secret.display}, replaced; works until {moment(secret.stops_at)}"
    return f"{secret.display}, replaced; stopped at {moment(secret.stops_at)}"
