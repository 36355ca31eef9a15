"""The security headers are on every answer, whoever gives it, and no answer needs anything inline."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from django.http import Http404, HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path
from django.views.defaults import page_not_found
from pytest_django import Settings

from tests import builders

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Response

CSP = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "font-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "manifest-src 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "object-src 'none'",
}
FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
INLINE = re.compile(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=|javascript:", re.IGNORECASE)


def _fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("on purpose")


def _is_absent(request: HttpRequest) -> HttpResponse:
    raise Http404


urlpatterns = [
    path("fails/", _fails),
    path("absent/", _is_absent),
    path("", include("portal.urls")),
]
handler404 = page_not_found


def check(response: Response, status: int) -> None:
    assert response.status_code == status
    for name, value in FIXED.items():
        assert response.headers[name] == value, name
    assert set(response.headers["Content-Security-Policy"].split("; ")) == CSP
    assert "camera=()" in response.headers["Permissions-Policy"]
    assert "Server" not in response.headers
    if response.headers.get("Content-Type", "").startswith("text/html") and not response.streaming:
        found = INLINE.search(response.content.decode())
        assert found is None, found


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/", "/accounts/login/", "/accounts/signup/"])
def test_a_page(client: Client, url: str) -> None:
    check(client.get(url), 200)


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/admin/", "/admin/login/"])
def test_the_admins_redirect_to_sign_in(client: Client, url: str) -> None:
    response = client.get(url)
    check(response, 302)


@pytest.mark.django_db
def test_the_admin_itself(client: Client) -> None:
    check(builders.signed_in(client, builders.staff()).get("/admin/"), 200)


@pytest.mark.django_db
def test_an_unknown_page(client: Client) -> None:
    check(client.get("/no-such-page/"), 404)


@pytest.mark.urls(__name__)
@pytest.mark.django_db
def test_a_view_that_finds_nothing(client: Client) -> None:
    check(client.get("/absent/"), 404)


@pytest.mark.django_db
def test_a_form_without_its_token() -> None:
    client = Client(enforce_csrf_checks=True)
    check(client.post("/accounts/login/", {"login": "alice@example.com"}), 403)


@pytest.mark.django_db
def test_a_host_that_is_not_ours(client: Client) -> None:
    check(client.get("/accounts/login/", headers={"host": "evil.example"}), 400)


@pytest.mark.django_db
def test_a_host_that_is_not_ours_on_an_https_portal(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    check(client.get("/accounts/login/", headers={"host": "evil.example"}), 400)


@pytest.mark.urls(__name__)
@pytest.mark.django_db
def test_a_failure_of_ours() -> None:
    client = Client(raise_request_exception=False)
    response = client.get("/fails/")
    check(response, 500)
    assert b"on purpose" not in response.content


def test_a_static_file(client: Client) -> None:
    response = client.get("/static/admin/css/base.css")
    check(response, 200)
    assert response.headers["Content-Type"].startswith("text/css")
    assert "Access-Control-Allow-Origin" not in response.headers
    b"".join(response)


def test_a_static_file_that_is_not_there(client: Client) -> None:
    check(client.get("/static/no-such-file.css"), 404)


def test_an_https_portal_redirects_and_tells_browsers_to_stay(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 31_536_000
    response = client.get("/accounts/login/")
    check(response, 301)
    assert response.headers["Location"] == "https://testserver/accounts/login/"
    secure = client.get("/static/admin/css/base.css", secure=True)
    assert secure.headers["Strict-Transport-Security"] == "max-age=31536000"
    b"".join(secure)
