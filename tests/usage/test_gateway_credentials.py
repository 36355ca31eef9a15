"""Which of the credentials on a request is the one that the gateway looks at."""

import pytest
from pytest_django import Settings

from keys import lifecycle, tokens
from keys.directory import Directory
from tests.usage.gateways import ask

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(issued: lifecycle.Issued, scheme: str) -> None:
    assert ask(authorization=f"{scheme} {issued.plaintext}").code == "VALID"


def test_x_api_key_is_as_good(issued: lifecycle.Issued) -> None:
    assert ask(x_api_key=issued.plaintext).code == "VALID"
    assert ask(x_api_key=issued.plaintext, bearer=issued.plaintext).code == "VALID"


def test_two_different_keys_of_ours_are_refused(issued: lifecycle.Issued) -> None:
    other = tokens.mint("lk", "live").plaintext
    answer = ask(x_api_key=issued.plaintext, bearer=other)
    assert (answer.status, answer.code) == (400, "MULTIPLE_CREDENTIALS")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="api", error="invalid_request"')
    assert ask(x_api_key=f"{issued.plaintext},{other}").code == "MULTIPLE_CREDENTIALS"
    both = f"Bearer {issued.plaintext}, Bearer {other}"  # two headers, as the server joins them
    assert ask(authorization=both).code == "MULTIPLE_CREDENTIALS"


def test_a_key_beside_another_scheme_is_found(issued: lifecycle.Issued) -> None:
    assert ask(authorization=f"Basic dXNlcjpwYXNz, Bearer {issued.plaintext}").code == "VALID"
    assert ask(authorization=f"Bearer {issued.plaintext}, Basic dXNlcjpwYXNz").code == "VALID"
    assert ask(authorization="Basic dXNlcjpwYXNz, Digest a=b").code == "MISSING_CREDENTIAL"


def test_a_foreign_bearer_beside_an_api_key_is_ignored(issued: lifecycle.Issued) -> None:
    assert ask(x_api_key=issued.plaintext, bearer="eyJhbGciOi.users.token").code == "VALID"
    assert ask(x_api_key="somebody-elses", bearer=issued.plaintext).code == "VALID"
    assert ask(x_api_key="junk", bearer="eyJhbGciOi.users.token").code == "MALFORMED"
    assert ask(authorization="Basic dXNlcjpwYXNz").code == "MISSING_CREDENTIAL"


def test_a_key_in_the_url_counts_only_if_that_is_set(issued: lifecycle.Issued, settings: Settings) -> None:
    url = f"/orders?page=2&api_key={issued.plaintext}"
    assert ask(x_original_uri=url).code == "MISSING_CREDENTIAL"
    settings.KEY_QUERY_PARAMETER = "api_key"
    assert ask(x_original_uri=url).code == "VALID"
    assert ask(x_forwarded_uri=url).code == "VALID"
    envoy = f"api_key={issued.plaintext}"
    assert ask(envoy, path="/gateway/envoy/orders", x_portal_rule="cost=1").code == "VALID"
    other = tokens.mint("lk", "live").plaintext
    assert ask(x_original_uri=url, bearer=other).code == "MULTIPLE_CREDENTIALS"
    assert ask(x_original_uri="/orders?api_key=%ff%00&api_key").code == "MALFORMED"


def test_no_credential_gets_a_bare_challenge(directory: Directory) -> None:
    answer = ask()
    assert (answer.status, answer.code) == (401, "MISSING_CREDENTIAL")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'
