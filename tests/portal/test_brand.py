"""The provider's text, logo and colour: readable whatever is accepted, served by the portal, cached."""

import re
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from keys import lifecycle
from portal import accent, brand, brand_checks
from tests import builders

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path d="M0 0h1v1z"/></svg>'
HEX = re.compile(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")
COLOURS = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


def scale(text: str) -> dict[str, tuple[accent.Colour, accent.Colour]]:
    """The names of the stylesheet, each with its colour on the light and on the dark page."""
    sheet = accent.stylesheet(accent.parse(text))
    assert len(HEX.findall(sheet)) == len(sheet.splitlines()) - 2
    return {name: (_colour(light), _colour(dark)) for name, light, dark in HEX.findall(sheet)}


def _colour(text: str) -> accent.Colour:
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


@given(COLOURS, COLOURS)
def test_words_can_be_read_in_and_on_every_accent_that_is_accepted(light: str, dark: str) -> None:
    try:
        found = scale(f"{light},{dark}")
    except accent.BadAccent as bad:
        # What is proposed instead is good.
        found = scale(bad.better)
    for which in (0, 1):
        step = {name: colours[which] for name, colours in found.items()}
        assert accent.contrast(step["on-accent"], step["iris-9"]) >= accent.WORDS
        assert accent.contrast(step["on-accent"], step["accent-hover"]) >= accent.WORDS
        for surface in ("iris-1", "iris-2", "iris-3"):
            assert accent.contrast(step["iris-11"], step[surface]) >= accent.WORDS
            assert accent.contrast(step["iris-12"], step[surface]) >= accent.WORDS


def test_a_page_links_the_colour_and_the_logo_and_caches_may_keep_them(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_bytes(SVG)
    settings.PORTAL_LOGO, settings.PORTAL_ACCENT = str(logo), "#0070f3"
    settings.PORTAL_TEXT = "Maps of <everything>.\n\nEven of you."
    html = client.get("/").content.decode()
    assert "<p>Maps of &lt;everything&gt;.</p>" in html
    for found, content_type in (("/brand.css", "text/css; charset=utf-8"), ("/brand/logo", "image/svg+xml")):
        address = re.search(rf'"({re.escape(found)}\?v=[0-9a-f]+)"', html)
        assert address is not None
        answer = client.get(address[1])
        assert answer.headers["Content-Type"] == content_type
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Vary" not in answer.headers
        assert client.get(found).headers["Cache-Control"] == "public, max-age=60"
    assert client.get("/brand/logo").content == SVG


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("contact", "href"),
    [
        ("support@example.com", "mailto:support@example.com"),
        ("https://example.com/support?a=1&b=@", "https://example.com/support?a=1&amp;b=@"),
    ],
)
def test_pages_link_to_where_the_provider_is_reached(
    client: Client, settings: Settings, contact: str, href: str
) -> None:
    settings.PORTAL_CONTACT = contact
    assert not list(brand_checks.portal_contact())
    assert f'<a href="{href}">Contact</a>' in client.get("/").text
    acme = builders.organization("acme", owner=builders.user("alice"))
    alice = builders.signed_in(client, acme.memberships.get().user)
    page = alice.get(reverse("billing", args=["acme"])).text
    assert f'<a href="{href}">Ask us</a> to change it' in page
    assert f'<a class="button button-primary" href="{href}">Contact us</a>' in page  # there is no plan
    assert f'<a class="menu-item" href="{href}">' in page
    lifecycle.suspend_organization(lifecycle.command_actor(), acme, reason="", now=timezone.now())
    assert f'<a href="{href}">Contact us</a>' in alice.get(reverse("overview", args=["acme"])).text


def test_without_settings_pages_are_as_they_were(client: Client) -> None:
    html = client.get("/").content.decode()
    assert "Contact" not in html
    assert "/brand" not in html
    assert client.get("/brand.css").status_code == client.get("/brand/logo").status_code == 404


@pytest.mark.parametrize(
    ("name", "body"),
    [("logo.gif", b"GIF89a"), ("logo.svg", b"<html>"), ("logo.png", b""), ("big.svg", SVG + b" " * 200_000)],
)
def test_a_file_that_is_no_logo_is_refused_and_never_served(
    client: Client, settings: Settings, tmp_path: Path, name: str, body: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(body)
    with pytest.raises(brand.BadLogo):
        brand.read_logo(str(path))
    settings.PORTAL_LOGO = str(path)
    assert client.get("/").status_code == 200
    assert client.get("/brand/logo").status_code == 404


@pytest.mark.parametrize(
    ("mode", "offered"),
    [("open", True), ("domain:example.com", True), ("invite", False), ("closed", False)],
)
def test_the_first_page_offers_an_account_only_where_one_may_be_made(
    client: Client, settings: Settings, mode: str, offered: bool
) -> None:
    settings.SIGNUP = mode
    html = client.get("/").content.decode()
    assert ("/accounts/signup/" in html) == offered
    assert "/accounts/login/" in html
    assert "/docs/" in html
