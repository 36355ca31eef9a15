"""The test bed itself: what every other test takes for granted."""

import subprocess
import sys

import pytest
from django.db import connection
from django.test import Client

from keys.models import Feed, Policy, Scope
from tests import builders
from tests.waiting import until

SEEDED = ["portal:keys", "portal:report", "portal:usage", "portal:verify"]


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.django_db(transaction=True)
def test_rows_of_the_migrations_are_there_again_after_a_flush(nth: int) -> None:
    assert list(Scope.objects.values_list("name", flat=True)) == SEEDED
    assert Feed.objects.get().number == 0
    assert Policy.objects.get().slug == "standard"
    builders.organization("acme", builders.user("alice"))


@pytest.mark.django_db
def test_the_database_is_the_one_asked_for(request: pytest.FixtureRequest) -> None:
    asked = {"postgres": "postgresql", "sqlite": "sqlite"}[request.config.getoption("db")]
    assert connection.vendor == asked


@pytest.mark.django_db
def test_builders_make_a_working_customer() -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", alice)
    issued = builders.key(acme, scopes=("orders:read",))
    assert issued.key.organization == acme
    assert issued.plaintext.startswith("lk_live_")
    assert issued.plaintext not in repr(issued)


@pytest.mark.django_db
def test_a_signed_in_client_has_just_given_its_password(client: Client) -> None:
    builders.signed_in(client, builders.user("alice"))
    records = client.session["account_authentication_methods"]
    assert records[-1]["method"] == "password"


@pytest.mark.django_db(transaction=True)
def test_another_process_sees_this_tests_database() -> None:
    builders.organization("acme", builders.user("alice"))
    program = (
        "import django; django.setup(); from keys.models import Organization; "
        "print(Organization.objects.get().slug)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=builders.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == "acme\n"


def test_who_waits_has_the_answer_or_learns_why_there_is_none() -> None:
    answers = iter([0, None, 7, 8])
    assert until(lambda: next(answers), pause=0) == 7
    with pytest.raises(AssertionError, match="none of them came"):
        until(lambda: 0, 0, why=lambda: "none of them came")
