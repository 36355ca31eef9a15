"""Who the tests of keys are about."""

import pytest

from keys.models import Organization
from tests import builders


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", builders.user("alice"))
