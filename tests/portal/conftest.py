"""Who looks at the pages of staff."""

import pytest
from django.test import Client

from portal.models import User
from tests import builders


@pytest.fixture
def sam() -> User:
    return builders.staff("sam")


@pytest.fixture
def signed_in(client: Client, sam: User) -> Client:
    return builders.signed_in(client, sam)
