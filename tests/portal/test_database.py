"""The database's connections as the settings make them."""

import os
import threading

import pytest
from django.db import connection, transaction
from django.test import Client

from tests import builders

pytestmark = pytest.mark.django_db(transaction=True)
ON_SQLITE = "sqlite" in os.environ["DATABASE_URL"]


@pytest.mark.skipif(not ON_SQLITE, reason="about the embedded database")
def test_the_embedded_database_loses_nothing_that_was_committed() -> None:
    with connection.cursor() as cursor:
        modes = [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 2]  # 2 is FULL
    assert connection.settings_dict["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


@pytest.mark.skipif(ON_SQLITE, reason="about PostgreSQL")
def test_a_restarted_database_fails_nobodys_page(client: Client) -> None:
    idle = threading.Barrier(12)

    def use() -> None:
        connection.ensure_connection()
        idle.wait(timeout=30)
        connection.close()  # back to the pool

    threads = [threading.Thread(target=use) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        cursor.execute("SELECT pg_backend_pid()")
        (mine,) = cursor.fetchone()
    connection.close()
    _terminate(mine)
    assert client.get("/docs/").status_code == 200


def test_a_page_that_waits_for_the_database_in_vain_says_so(client: Client) -> None:
    organization = builders.organization("acme")
    key = builders.key(organization).key
    builders.member(alice := builders.user("alice"), organization)
    builders.signed_in(client, alice)
    client.raise_request_exception = False
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            if not ON_SQLITE:
                with connection.cursor() as cursor:
                    cursor.execute("LOCK TABLE keys_organization IN ACCESS EXCLUSIVE MODE")
            held.set()
            done.wait(timeout=30)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(timeout=30)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 100" if ON_SQLITE else "SET lock_timeout = '100ms'")
    try:
        response = client.post(f"/o/acme/keys/{key.public_id}/disable/")
    finally:
        done.set()
        holder.join()
        connection.close()
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert "cannot reach its database" in builders.text(response)


def _terminate(pid: int) -> None:
    """End one backend from a connection outside the pool, as a restart ends all."""
    import psycopg

    parameters = connection.get_connection_params()
    parameters.pop("pool", None)
    with psycopg.connect(
        dbname=parameters["dbname"], host=parameters["host"], user=parameters["user"], autocommit=True
    ) as outside:
        outside.execute("SELECT pg_terminate_backend(%s)", [pid])
