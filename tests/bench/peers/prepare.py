"""Makes the peers' tables and a thousand keys for each, and prints these as JSON."""

import json
import os
from datetime import timedelta

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.peers.settings"

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402  Django must be set up first
from django.core.management import call_command  # noqa: E402  as above
from django.db import connection  # noqa: E402  as above
from django.utils import timezone  # noqa: E402  as above
from knox.models import AuthToken  # noqa: E402  as above
from oauth2_provider.models import AccessToken, Application  # noqa: E402  as above
from rest_framework_api_key.models import APIKey  # noqa: E402  as above

KEYS = 1000


def main() -> None:
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE peers_usage (key text, hour timestamptz, calls bigint, PRIMARY KEY (key, hour))"
        )
    # A user for each: knox looks at all tokens of a call's user.
    users = User.objects.bulk_create(User(username=f"bench{number}") for number in range(KEYS))
    user = users[0]
    keys = [APIKey.objects.create_key(name=f"Key {number}")[1] for number in range(KEYS)]
    tokens = [AuthToken.objects.create(each)[1] for each in users]
    application = Application.objects.create(
        name="bench", client_type="confidential", authorization_grant_type="client-credentials", user=user
    )
    expires = timezone.now() + timedelta(days=1)
    for number in range(KEYS):
        AccessToken.objects.create(
            user=user,
            application=application,
            token=f"token-{number:04d}-{'x' * 20}",
            expires=expires,
            scope="read",
        )
    print(
        json.dumps(
            {
                "api-key": [f"Api-Key {key}" for key in keys],
                "knox": [f"Token {token}" for token in tokens],
                "oauth": [f"Bearer token-{number:04d}-{'x' * 20}" for number in range(KEYS)],
            }
        )
    )


if __name__ == "__main__":
    main()
