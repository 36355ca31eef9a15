"""Who the tests of keys are about."""

import pytest
from django.test import Client

from keys.models import Organization
from portal.models import User
from tests import builders


@pytest.fixture
def sam() -> User:
    return builders.staff("sam")


@pytest.fixture
def admin(client: Client, sam: User) -> Client:
    return builders.signed_in(client, sam)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", builders.user("alice"))
