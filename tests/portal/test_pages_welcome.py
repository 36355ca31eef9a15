"""A newcomer's first page: an organization and a first key in one step, both or neither, once."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings as django_settings
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from keys.models import AuditEvent, Key, Organization
from keys.permissions import Role
from tests import builders

pytestmark = pytest.mark.django_db

SECRET = re.compile(r"lk_(?:live|test)_[0-9A-Za-z]{38}")
WELCOME = "/welcome/"


@pytest.fixture
def bob(client: Client) -> Client:
    return builders.signed_in(client, builders.user("bob"))


def form(client: Client, **fields: object) -> dict[str, object]:
    found = re.search(r'name="once" value="([^"]+)"', client.get(WELCOME).content.decode())
    assert found is not None
    return {"organization": "Acme Maps", "once": found[1]} | fields


def test_from_the_landing_page_to_a_key_in_three_pages(client: Client) -> None:
    cache.clear()
    visited = []

    def see(path: str) -> str:
        response = client.get(path)
        assert response.status_code == 200
        visited.append(path)
        return response.content.decode()

    landing = client.get("/").content.decode()
    signup = reverse("account_signup")
    assert signup in landing
    see(signup)
    code_page = client.post(signup, {"email": "new@example.com", "password1": builders.PASSWORD})
    found = re.search(r"^(\S{4,12}) is your", str(mail.outbox[-1].subject))
    assert found is not None
    confirmed = client.post(code_page.headers["Location"], {"code": found[1]})
    home = client.get(confirmed.headers["Location"])
    welcome = home.headers["Location"]
    html = see(welcome)
    once = re.search(r'name="once" value="([^"]+)"', html)
    assert once is not None
    answer = client.post(welcome, {"organization": "Acme Maps", "once": once[1]})
    visited.append("the key")
    assert SECRET.search(answer.content.decode())
    assert len(visited) == 3
    organization = Organization.objects.get(slug="acme-maps")
    assert organization.memberships.get().role == Role.OWNER.value
    assert organization.keys.get().name == "My first key"


def test_the_answer_holds_the_secret_and_stays_out_of_caches(bob: Client) -> None:
    answer = bob.post(WELCOME, form(bob, name="Laptop", environment="test"))
    assert answer.status_code == 200
    assert len(set(SECRET.findall(answer.content.decode()))) == 1
    assert "no-store" in answer.headers["Cache-Control"]
    key = Key.objects.get()
    assert (key.name, key.environment) == ("Laptop", "test")
    assert key.expires_at is not None


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Acme Maps", "acme-maps"),
        ("  Ümlaut & Söhne GmbH ", "umlaut-sohne-gmbh"),
        ("a_b", "a-b"),
        ("-- x --", "x"),
        ("y" * 100, "y" * 50),
    ],
)
def test_the_address_is_made_from_the_name(bob: Client, name: str, slug: str) -> None:
    bob.post(WELCOME, form(bob, organization=name))
    assert Organization.objects.get().slug == slug


def test_a_name_without_latin_letters_asks_for_an_address(bob: Client) -> None:
    html = bob.post(WELCOME, form(bob, organization="日本地図")).content.decode()
    assert "Choose a URL for it" in html
    bob.post(WELCOME, form(bob, organization="日本地図", slug="nihon"))
    assert Organization.objects.get().name == "日本地図"


def test_an_address_that_cannot_be_one_is_answered_with_one_that_can(bob: Client) -> None:
    html = bob.post(WELCOME, form(bob, slug="Acme Maps!")).content.decode()
    assert "Use lower-case letters, digits and single hyphens, e.g. acme-maps." in html


def test_an_address_that_is_taken_is_said_and_nothing_is_made(bob: Client) -> None:
    builders.organization("acme-maps")
    before = AuditEvent.objects.count()
    html = bob.post(WELCOME, form(bob)).content.decode()
    assert "“acme-maps” is taken" in html
    assert (Organization.objects.count(), Key.objects.count()) == (1, 0)
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("organization", ""),
        ("organization", "a\x00b"),
        ("organization", "x" * 101),
        ("organization", "a\u2028b"),
        ("slug", "Not A Slug"),
        ("slug", "a\x00b"),
        ("slug", "../admin"),
        ("slug", "x" * 51),
        ("name", "a\x00b"),
        ("name", "a\u2029b"),
        ("environment", "prod"),
        ("scopes", "portal:verify"),
        ("scopes", "no:such"),
    ],
)
def test_junk_makes_neither_organization_nor_key(bob: Client, field: str, value: str) -> None:
    response = bob.post(WELCOME, form(bob, **{field: value}))
    assert response.status_code == 200
    assert "field-error" in response.content.decode()
    assert not Organization.objects.exists()
    assert not Key.objects.exists()


def test_sending_it_twice_makes_one(bob: Client) -> None:
    fields = form(bob)
    bob.post(WELCOME, fields)
    again = bob.post(WELCOME, fields)
    assert again.status_code == 409
    assert not SECRET.search(again.content.decode())
    assert Organization.objects.count() == 1
    key = Key.objects.get()
    assert f'href="/o/acme-maps/keys/{key.public_id}/rotate/"' in again.content.decode()


def test_who_has_an_organization_is_sent_home(bob: Client) -> None:
    first = form(bob)
    second = form(bob, organization="Second")
    bob.post(WELCOME, first)
    assert bob.get(WELCOME).headers["Location"] == reverse("home")
    assert bob.post(WELCOME, second).headers["Location"] == reverse("home")
    assert Organization.objects.count() == 1


def test_where_people_cannot_sign_up_they_cannot_found_organizations(bob: Client, settings: Settings) -> None:
    fields = form(bob)
    settings.SIGNUP = "invite"
    assert "You are not in an organization" in bob.get(WELCOME).content.decode()
    bob.post(WELCOME, fields)
    assert not Organization.objects.exists()


def test_it_asks_again_who_it_is_after_a_while(client: Client) -> None:
    client.force_login(builders.user("bob"))
    response = client.get(WELCOME)
    assert response.headers["Location"].startswith(reverse("account_reauthenticate"))


@pytest.mark.django_db(transaction=True)
def test_two_tabs_at_once_make_one_organization(bob: Client) -> None:
    forms = [form(bob, organization=f"Number {number}") for number in range(4)]

    def send(fields: dict[str, object]) -> int:
        tab = Client()
        name = django_settings.SESSION_COOKIE_NAME
        tab.cookies[name] = bob.cookies[name].value
        try:
            return tab.post(WELCOME, fields).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(len(forms)) as pool:
        statuses = sorted(pool.map(send, forms))
    assert statuses.count(200) == 1
    assert Organization.objects.count() == Key.objects.count() == 1
