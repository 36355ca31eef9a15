"""The security headers are on every answer, whoever gives it, and no answer needs anything inline."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from django.http import Http404, HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import include, path
from django.views.defaults import page_not_found
from pytest_django import Settings

from portal import wsgi
from portal.views import errors
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
handler500 = errors.server_error


def check(response: Response | HttpResponse, status: int) -> None:
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


FORM = "application/x-www-form-urlencoded; charset="
STRANGE = [
    *(FORM + charset for charset in ("utf-7", "utf-16", "hex", "undefined", "idna")),
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=\xff",
    "multipart/form-data; boundary=x; charset=hex",
    "text/plain; a*=x''%ff",
    f"text/plain; a={'b' * 20_000}",
]


def served(client: Client, method: str, url: str, body: bytes, kind: str) -> HttpResponse:
    """The answer of the server's callable; Django's test client has a handler of its own."""
    cookies = client.cookies.output(header="", sep=";", attrs=[])
    environ = RequestFactory().generic(method, url, body).environ | {
        "CONTENT_TYPE": kind,
        "HTTP_COOKIE": cookies,
    }
    response = HttpResponse()

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        response.status_code = int(status[:3])
        for name, value in headers:
            response.headers[name] = value

    response.content = b"".join(wsgi.application(environ, start))
    return response


@pytest.mark.django_db
@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize("kind", STRANGE)
def test_a_form_that_cannot_be_read(client: Client, kind: str, *, signed_in: bool) -> None:
    if signed_in:
        builders.signed_in(client, builders.user("alice"))
    client.cookies["csrftoken"] = "a" * 32
    response = served(client, "POST", "/welcome/?a=%20b", b"a=b", kind)
    check(response, 400)
    assert b"could not be understood" in response.content


@pytest.mark.django_db
@pytest.mark.parametrize("charset", ["utf8", "UTF_8", "no-such-thing", "'"])
def test_a_form_in_utf_8_by_any_name(client: Client, charset: str) -> None:
    builders.user("alice")
    body = urlencode({"login": "alice@example.com", "password": builders.PASSWORD})
    response = client.generic("POST", "/accounts/login/", body, content_type=FORM + charset)
    check(response, 302)


def test_an_answer_without_django(client: Client) -> None:
    response = served(client, "GET", "/healthz", b"", "")
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.urls(__name__)
@pytest.mark.django_db
def test_a_failure_of_ours_looks_like_the_provider_and_tells_nothing(settings: Settings) -> None:
    settings.PORTAL_NAME, settings.PORTAL_ACCENT = "Acme", "#0070f3"
    client = Client(raise_request_exception=False)
    response = client.get("/fails/")
    check(response, 500)
    assert b"on purpose" not in response.content
    assert b"<span>Acme</span>" in response.content
    assert b"/brand.css?v=" in response.content


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
