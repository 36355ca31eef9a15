"""Components: what is visible is also said, and nothing of a user's is ever markup."""

import datetime as dt
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django import forms
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.paginator import Paginator
from django.template.exceptions import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.utils import timezone

from keys.models import KeyState
from keys.permissions import Role
from keys.verdicts import Code
from portal.templatetags.portal_ui import TONES, ago, icon, tone
from tests import builders

COMPONENTS = settings.BASE_DIR / "templates/components"


class Form(forms.Form):
    name = forms.CharField(help_text="What will call with it.")
    kinds = forms.MultipleChoiceField(
        choices=[("a", "A")], widget=forms.CheckboxSelectMultiple, help_text="Any."
    )
    agree = forms.BooleanField()


class Ids(HTMLParser):
    """Collects every id, and every id that an attribute refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.referred: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("for", "aria-describedby", "aria-labelledby") and value:
                self.referred.update(value.split())


@pytest.mark.parametrize("data", [None, {}], ids=["fresh", "with errors"])
def test_labels_help_and_errors_belong_to_their_control(data: dict[str, str] | None) -> None:
    found = Ids(render_to_string("components/form.html", {"form": Form(data)}))
    assert len(found.ids) == len(set(found.ids))
    assert found.referred <= set(found.ids)
    assert "id_name_helptext" in found.referred
    assert ("id_name_error" in found.referred) == (data is not None)


def test_a_help_text_that_a_page_passes_is_escaped() -> None:
    html = render_to_string("components/field.html", {"field": Form()["name"], "help": "<b>Acme</b>"})
    assert "&lt;b&gt;Acme" in html


@pytest.mark.parametrize("name", ["badge", "copy", "code", "empty", "notice", "stat", "button", "confirm"])
def test_text_is_never_markup(name: str) -> None:
    evil = "<script>alert(1)</script>"
    keys = ("text", "title", "label", "value", "state", "note", "button", "action_label", "detail")
    html = render_to_string(
        f"components/{name}.html", dict.fromkeys(keys, evil) | {"id": "x", "action_url": "/"}
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("state", KeyState.values)
def test_every_state_of_a_key_has_a_tone(state: str) -> None:
    assert state in TONES


def test_a_badge_needs_no_state() -> None:
    html = render_to_string("components/badge.html", {"text": "behind", "tone": "bad"})
    assert "Behind" in html
    assert "badge-bad" in html


def test_an_unknown_state_is_neutral() -> None:
    assert tone("something new") == "neutral"
    assert tone(Code.VALID) == "good"


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "just now"), (0, "just now"), (50, "just now"), (60, "1 minute ago")]
)
def test_what_is_not_a_minute_old_was_just_now(seconds: int, said: str) -> None:
    assert ago(timezone.now() - dt.timedelta(seconds=seconds)).replace("\xa0", " ") == said


def test_an_unknown_icon_is_an_error() -> None:
    with pytest.raises(TemplateDoesNotExist):
        icon("no-such-icon")


def test_every_component_is_in_the_readme() -> None:
    readme = (COMPONENTS / "README.md").read_text()
    internal = {"brand.html", "icons.html", "messages.html", "sidebar.html", "theme_switch.html"}
    assert {path.name for path in COMPONENTS.glob("*.html")} - internal <= set(
        re.findall(r"[\w]+\.html", readme)
    )


def test_a_moment_is_shown_in_utc_before_any_script_runs() -> None:
    at = dt.datetime(2026, 11, 23, 8, 46, tzinfo=dt.UTC)
    html = render_to_string("components/time.html", {"at": at})
    assert 'datetime="2026-11-23T08:46:00+00:00"' in html
    assert "23 Nov 2026, 08:46 UTC</time>" in html


def test_no_moment_is_never() -> None:
    assert render_to_string("components/time.html", {"at": None}).strip() == "never"


def test_pages_keep_the_rest_of_the_query() -> None:
    request = RequestFactory().get("/", {"state": "active", "page": "2"})
    html = render_to_string("components/pagination.html", {"page": Paginator(range(90), 25).page(2)}, request)
    assert "26–50 of 90" in html
    assert "?state=active&amp;page=3" in html
    assert "?state=active&amp;page=1" in html
    assert 'aria-label="Next page"' in html


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "sees_activity"),
    [
        (Role.OWNER, True),
        (Role.ADMIN, True),
        (Role.DEVELOPER, True),
        (Role.BILLING, False),
        (Role.VIEWER, False),
    ],
)
def test_the_sidebar_names_only_pages_that_the_role_may_open(
    client: Client, role: Role, sees_activity: bool
) -> None:
    alice = builders.user("alice")
    builders.member(alice, builders.organization("acme"), role)
    page = builders.signed_in(client, alice).get("/o/acme/").text
    assert ("/o/acme/activity/" in page) == sees_activity
    assert 'href="/o/acme/" aria-current="page"' in page


@pytest.mark.django_db
def test_the_switcher_offers_ones_own_organizations_only(client: Client) -> None:
    alice = builders.user("alice")
    for slug in ("acme", "fernweh"):
        builders.organization(slug, alice)
    builders.organization("stranger", builders.user("bob"))
    page = builders.signed_in(client, alice).get("/o/acme/").text
    assert 'href="/o/fernweh/"' in page
    assert "stranger" not in page.lower()


@pytest.mark.parametrize("path", ["css/tokens.css", "css/base.css", "css/components.css", "css/admin.css"])
def test_every_file_a_stylesheet_names_is_here(path: str) -> None:
    found = finders.find(path)
    assert found
    sheet = Path(found)
    for target in re.findall(r'url\("([^"]+)"\)', sheet.read_text()):
        assert (sheet.parent / target).resolve().is_file(), target


@pytest.mark.parametrize(
    "folder", sorted((settings.BASE_DIR / "static/vendor").iterdir()), ids=lambda path: path.name
)
def test_what_is_vendored_brings_its_licence(folder: Path) -> None:
    assert (folder / "LICENSE").is_file()
