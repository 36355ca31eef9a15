"""Sign-up and sign-in: who may join, what the mails say, and that no input makes them fall over."""

import re
from urllib.parse import urlencode, urlsplit

import pytest
from allauth.core.context import request_context
from django.conf import settings as project
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from portal.accounts import AccountAdapter
from portal.models import User
from tests import builders

pytestmark = pytest.mark.django_db

NEW = {"email": "alice@example.com", "password1": builders.PASSWORD}
JUNK = {
    "nul": "a\x00b@example.com",
    "surrogate": "%ED%A0%80@example.com",
    "broken utf-8": "%FF%FE@example.com",
    "right-to-left": "\u202ealice@example.com",
    "a million": "a" * 1_000_000,
}
POSTS = {
    "account_login": ("/accounts/login/", ("login", "password", "remember", "next")),
    "account_signup": ("/accounts/signup/", ("email", "password1", "next")),
    "account_request_login_code": ("/accounts/login/code/", ("email", "next")),
    "account_reset_password": ("/accounts/password/reset/", ("email", "next")),
}

TOKEN = r'name="csrfmiddlewaretoken" value="\w+"'

MAILS = sorted(
    path.name.removesuffix("_subject.txt")
    for path in (project.BASE_DIR / "templates/account/email").glob("*_subject.txt")
)


@pytest.fixture(autouse=True)
def _no_rate_limit_of_another_test() -> None:
    """allauth counts attempts in the cache, which a test with real transactions leaves as it is."""
    cache.clear()


def code_in(message: mail.EmailMessage) -> str:
    found = re.match(r"(\S+) is your Latchkey code$", str(message.subject))
    assert found
    return found[1]


def posted(client: Client, path: str, fields: dict[str, str]) -> int:
    """The status of a POST whose values may be percent-encoded bytes already."""
    body = "&".join(f"{name}={value}" for name, value in fields.items())
    return client.post(path, body, content_type="application/x-www-form-urlencoded").status_code


def test_signing_up_takes_an_address_a_password_and_the_code(client: Client) -> None:
    response = client.post("/accounts/signup/", NEW)
    assert response["Location"] == "/accounts/confirm-email/"
    response = client.post("/accounts/confirm-email/", {"code": code_in(mail.outbox[0])})
    assert response["Location"] == "/home/"
    assert client.session["_auth_user_id"] == str(User.objects.get(email="alice@example.com").pk)


def test_a_wrong_code_signs_nobody_in(client: Client) -> None:
    client.post("/accounts/signup/", NEW)
    response = client.post("/accounts/confirm-email/", {"code": "WRONG-ONE"})
    assert "Incorrect code" in response.text
    assert "_auth_user_id" not in client.session


def test_a_code_mail_holds_the_code_and_no_link(client: Client) -> None:
    client.post("/accounts/signup/", NEW)
    message = mail.outbox[0]
    assert code_in(message) in message.body
    assert "/accounts/" not in message.body


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/accounts/signup/", "Confirm your email address"),
        ("/accounts/login/code/", "Sign in"),
        ("/accounts/password/reset/", "Reset your password"),
    ],
)
def test_a_page_that_asks_for_a_code_names_the_portal_in_its_title(
    client: Client, path: str, title: str
) -> None:
    builders.user("bob")
    fields = NEW if path == "/accounts/signup/" else {"email": "bob@example.com"}
    page = client.post(path, fields, follow=True).text
    assert "<title>" + title + " · Latchkey</title>" in page


def test_signing_in_with_a_password_leads_home(client: Client) -> None:
    alice = builders.user("alice")
    response = client.post("/accounts/login/", {"login": alice.email, "password": builders.PASSWORD})
    assert response["Location"] == "/home/"


def test_a_flood_of_other_addresses_does_not_lift_a_lock(client: Client) -> None:
    alice = builders.user("alice")
    for _ in range(5):
        client.post("/accounts/login/", {"login": alice.email, "password": "wrong"})
    for number in range(400):  # Django's own cache would hold 300, for one process
        cache.set(f"flood-{number}", number, 300)
    response = client.post("/accounts/login/", {"login": alice.email, "password": builders.PASSWORD})
    assert "Too many failed login attempts" in response.text
    assert "_auth_user_id" not in client.session


def test_too_many_sign_ups_are_answered_in_our_look(client: Client) -> None:
    responses = [client.post("/accounts/signup/", NEW | {"email": "x"}) for _ in range(21)]
    assert responses[-1].status_code == 429
    assert "Too many attempts" in responses[-1].text
    assert "stylesheet" in responses[-1].text


def test_every_process_counts_the_same_attempts() -> None:
    cache.set("attempts", [1.0])
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM portal_cache WHERE cache_key LIKE '%attempts'")
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/accounts/signup/", "/docs/"])
def test_a_page_that_is_only_read_asks_the_cache_nothing(client: Client, path: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    assert not [query for query in queries.captured_queries if "portal_cache" in query["sql"]]


def test_signing_in_with_a_code_leads_home(client: Client) -> None:
    alice = builders.user("alice")
    client.post("/accounts/login/code/", {"email": alice.email})
    response = client.post("/accounts/login/code/confirm/", {"code": code_in(mail.outbox[0])})
    assert response["Location"] == "/home/"


def test_an_unknown_address_is_answered_like_a_known_one(client: Client) -> None:
    builders.user("alice")
    known = client.post("/accounts/login/code/", {"email": "alice@example.com"})
    unknown = Client().post("/accounts/login/code/", {"email": "bob@example.com"})
    assert (known.status_code, known["Location"]) == (unknown.status_code, unknown["Location"])


def test_signing_up_twice_says_so_by_mail_only(client: Client) -> None:
    builders.user("alice")
    response = client.post("/accounts/signup/", NEW)
    assert response["Location"] == "/accounts/confirm-email/"
    assert mail.outbox[0].subject == "You already have a Latchkey account"


def test_the_page_after_signing_up_is_the_same_for_a_known_address(client: Client) -> None:
    builders.user("alice")
    stranger = Client()
    client.post("/accounts/signup/", NEW)
    stranger.post("/accounts/signup/", NEW | {"email": "bob@example.com"})
    known = client.get("/accounts/confirm-email/").text
    new = stranger.get("/accounts/confirm-email/").text
    assert "Use another address" in known
    assert re.sub(TOKEN, "", known).replace("alice", "bob") == re.sub(TOKEN, "", new)


def test_signing_up_with_a_known_address_costs_a_hash_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    builders.user("alice")
    hashed: list[str] = []
    encode = MD5PasswordHasher.encode

    def counted(hasher: MD5PasswordHasher, password: str, salt: str) -> str:
        hashed.append(salt)
        return encode(hasher, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counted)
    client.post("/accounts/signup/", NEW)
    known = len(hashed)
    Client().post("/accounts/signup/", NEW | {"email": "bob@example.com"})
    assert known == len(hashed) - known == 1


def test_mails_carry_the_portals_name(client: Client, settings: Settings) -> None:
    settings.PORTAL_NAME = "Acme Maps"
    client.post("/accounts/signup/", NEW)
    assert mail.outbox[0].subject.endswith("is your Acme Maps code")
    assert "Acme Maps" in mail.outbox[0].body


@pytest.mark.parametrize("prefix", MAILS)
def test_every_mail_has_one_plain_subject_and_a_plain_body(prefix: str, settings: Settings) -> None:
    settings.PORTAL_NAME = "Smith & Sons <Maps>"
    facts = {"code": "AB12-CD34", "timestamp": "now", "ip": "192.0.2.1", "user_agent": "<Agent> & co"}
    facts |= {"from_email": "a@example.com", "to_email": "b@example.com", "deleted_email": "c@example.com"}
    facts |= {"password_reset_url": "https://x.test/?a=1&b=2", "signup_url": "https://x.test/?a=1&b=2"}
    with request_context(RequestFactory().get("/")):
        AccountAdapter().send_mail(f"account/email/{prefix}", "alice@example.com", facts)
    message = mail.outbox[0]
    assert "Smith & Sons <Maps>" in message.subject
    assert "Smith & Sons <Maps>" in message.body
    assert not re.search(r"&\w+;|&#|[{}]|Hello from", f"{message.subject} {message.body}")


def test_a_changed_password_is_reported_by_mail(client: Client, settings: Settings) -> None:
    settings.ACCOUNT_EMAIL_NOTIFICATIONS = True
    alice = builders.signed_in(client, builders.user("alice"))
    new = "a much better password"
    fields = {"oldpassword": builders.PASSWORD, "password1": new, "password2": new}
    assert alice.post("/accounts/password/change/", fields).status_code == 302
    assert mail.outbox[0].subject == "Your Latchkey password was changed"
    assert "http://127.0.0.1:8000/accounts/password/reset/" in mail.outbox[0].body


@pytest.mark.parametrize("value", ["closed", "invite", "domain:", "opne", ""])
def test_sign_up_is_closed_unless_it_is_open(client: Client, settings: Settings, value: str) -> None:
    settings.SIGNUP = value
    assert "Create account" not in client.get("/accounts/signup/").text
    client.post("/accounts/signup/", NEW)
    assert not User.objects.exists()


def test_a_portal_by_invitation_says_so(client: Client, settings: Settings) -> None:
    settings.SIGNUP = "invite"
    assert "Sign-up is by invitation" in client.get("/accounts/signup/").text


def test_a_closed_portal_still_signs_in(client: Client, settings: Settings) -> None:
    settings.SIGNUP = "closed"
    alice = builders.user("alice")
    response = client.post("/accounts/login/", {"login": alice.email, "password": builders.PASSWORD})
    assert response["Location"] == "/home/"


@pytest.mark.parametrize("email", ["alice@example.com", "alice@EXAMPLE.com", "alice@other.org"])
def test_a_domain_of_the_portals_may_sign_up(client: Client, settings: Settings, email: str) -> None:
    settings.SIGNUP = "domain:example.com, Other.org"
    client.post("/accounts/signup/", NEW | {"email": email})
    assert User.objects.filter(email=email.lower()).exists()


@pytest.mark.parametrize(
    "email",
    [
        "alice@sub.example.com",
        "alice@notexample.com",
        "alice@example.com.evil.test",
        '"a@example.com"@x.test',
    ],
)
def test_another_domain_may_not(client: Client, settings: Settings, email: str) -> None:
    settings.SIGNUP = "domain:example.com"
    response = client.post("/accounts/signup/", NEW | {"email": email})
    assert "Use an address that ends in @example.com." in response.text
    assert not User.objects.exists()


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
@pytest.mark.parametrize("name", POSTS)
def test_junk_in_any_field_is_an_error_of_the_form(client: Client, name: str, junk: str) -> None:
    path, fields = POSTS[name]
    good = {"login": "alice@example.com", "email": "alice@example.com"} | dict.fromkeys(
        ("password", "password1"), builders.PASSWORD
    )
    for field in fields:
        cache.clear()
        sent = urlencode({"": junk})[1:] if "%" not in junk else junk
        filled = {each: good.get(each, "") for each in fields} | {field: sent}
        assert posted(Client(), path, filled) in (200, 302), field


@pytest.mark.parametrize("name", POSTS)
def test_more_than_a_request_may_hold_is_refused(client: Client, name: str) -> None:
    path, fields = POSTS[name]
    for field in fields:
        assert posted(client, path, {field: "a" * 1_048_576}) == 400


@pytest.mark.parametrize("junk", [*JUNK.values(), "\x00"], ids=[*JUNK.keys(), "only nul"])
def test_junk_as_a_code_is_a_wrong_code(client: Client, junk: str) -> None:
    client.post("/accounts/signup/", NEW)
    assert posted(client, "/accounts/confirm-email/", {"code": urlencode({"": junk})[1:]}) == 200
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize(
    "query",
    [
        "next=%00",
        "next=%0d%0aX: y",
        "next=//evil.test",
        "next=javascript:alert(1)",
        "next=%ED%A0%80",
        "%00=1",
    ],
)
def test_a_strange_next_is_never_followed(client: Client, query: str) -> None:
    alice = builders.user("alice")
    assert client.get(f"/accounts/login/?{query}").status_code == 200
    response = client.post(f"/accounts/login/?{query}", {"login": alice.email, "password": builders.PASSWORD})
    assert response.status_code == 302
    assert urlsplit(response["Location"])[:2] == ("", "")


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/login/",
        "/accounts/signup/",
        "/accounts/login/code/",
        "/accounts/password/reset/",
        "/accounts/inactive/",
        "/accounts/password/reset/key/1-x/",
        "/",
        "/no/such/page",
    ],
)
def test_a_page_before_sign_in_is_ours_and_inline_free(client: Client, path: str) -> None:
    page = client.get(path, follow=True).text
    assert 'class="brand"' in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)


@pytest.mark.parametrize(
    "path",
    ["/accounts/email/", "/accounts/password/change/", "/accounts/reauthenticate/", "/accounts/logout/"],
)
def test_a_page_of_ones_account_is_ours_and_inline_free(client: Client, path: str) -> None:
    response = builders.signed_in(client, builders.user("alice")).get(path)
    assert "no-store" in response.headers["Cache-Control"]
    page = response.text
    assert 'class="brand"' in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
