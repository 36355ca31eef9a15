"""A database with very many keys, written straight into its tables: `lifecycle` would take an hour for a
million.

`python -m tests.bench.data DATABASE_URL NUMBER FOLDER` fills an empty one and leaves in the folder what the
clients send, one a line: `keys`, `limited` (with two windows), `unknown`, `malformed`, `session` (a cookie of
the owner of `customer-0`), `verifier` (a key that may verify others).
"""

import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path

from keys import tokens
from tests.faults import alone

SCOPE = "orders:read"
ORGANIZATIONS = 100
LIMITED = 200
RATES = ["1000000/second", "1000000000/hour"]  # out of reach: what is measured is the counting
STRANGERS = 100_000


def plaintexts(number: int, seed: int = 1) -> Iterator[str]:
    """Well-formed keys, the same ones for the same seed. `tokens.mint` asks the operating system for each
    character, which a million of them need not."""
    chance = random.Random(seed)
    letters = string.digits + string.ascii_letters
    for _ in range(number):
        body = "lk_live_" + "".join(chance.choices(letters, k=tokens.RANDOM_LENGTH))
        yield body + tokens.checksum(body)


def fill(number: int, into: Path) -> None:
    """`number` live keys, spread over ORGANIZATIONS; their plaintexts go to the file `into`, one a line."""
    from django.db import connection
    from django.utils import timezone

    from keys.models import Key, Scope, Secret
    from tests import builders

    now = timezone.now()
    scope = Scope.objects.filter(name=SCOPE).first() or builders.scope(SCOPE)
    owners = [builders.organization(f"customer-{n}") for n in range(ORGANIZATIONS)]
    connection.ensure_connection()
    with into.open("w") as file, connection.connection.cursor() as cursor:
        secrets: list[tuple[int, str]] = []
        with cursor.copy(
            f"COPY {Key._meta.db_table} (id, public_id, organization_id, environment, name, networks, rates,"
            " metadata, revoked_reason, created_at) FROM STDIN"
        ) as copy:
            for pk, plaintext in enumerate(plaintexts(number), start=1):
                owner = owners[pk % ORGANIZATIONS]
                copy.write_row(
                    (pk, f"key_{pk:016d}", owner.pk, "live", f"Backend {pk}", "[]", "[]", "{}", "", now)
                )
                secrets.append((pk, plaintext))
                file.write(plaintext + "\n")
        with cursor.copy(
            f"COPY {Secret._meta.db_table} (key_id, digest, prefix, hint, imported, created_at) FROM STDIN"
        ) as copy:
            for pk, plaintext in secrets:
                copy.write_row((pk, tokens.digest(plaintext), "lk", plaintext[-10:-6], False, now))
        with cursor.copy(f"COPY {Key.scopes.through._meta.db_table} (key_id, scope_id) FROM STDIN") as copy:
            for pk, _ in secrets:
                copy.write_row((pk, scope.pk))
        for table in (Key._meta.db_table, Secret._meta.db_table):
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {number})")
        cursor.execute("ANALYZE")


def others(folder: Path) -> None:
    """The rest of what clients send."""
    from django.test import Client

    from keys.models import Organization
    from keys.permissions import Role
    from tests import builders

    limited = builders.organization("limited")
    verifier = builders.organization("verifier")
    owner = builders.user("alice")
    builders.member(owner, Organization.objects.get(slug="customer-0"), Role.OWNER)
    browser = builders.signed_in(Client(), owner)
    chance = random.Random(2)
    letters = string.digits + string.ascii_letters
    lines = {
        "limited": [
            builders.key(limited, name=f"Key {n}", scopes=(SCOPE,), rates=RATES).plaintext
            for n in range(LIMITED)
        ],
        "verifier": [builders.key(verifier, scopes=("portal:verify",)).plaintext],
        "unknown": list(plaintexts(STRANGERS, seed=3)),
        "malformed": ["lk_live_" + "".join(chance.choices(letters, k=30)) for _ in range(STRANGERS // 10)],
        "session": [f"sessionid={browser.cookies['sessionid'].value}"],
    }
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n")


def main() -> None:
    url, number, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    with alone.portal(url):
        fill(number, folder / "keys")
        others(folder)


if __name__ == "__main__":
    main()
