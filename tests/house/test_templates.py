"""Every template parses, and none needs what the content security policy forbids."""

import re
from pathlib import Path

import pytest
from django.template import engines
from django.template.backends.django import DjangoTemplates
from django.template.loader import get_template

from tests.house.files import ROOT, name, templates

FORBIDDEN = {
    r"\sstyle\s*=": "styles stand in static/css",
    r"<style\b": "styles stand in static/css",
    r"<script\b(?![^>]*\ssrc=)": "scripts stand in static/js",
    r"<script\b[^>]*>\s*[^<\s]": "scripts stand in static/js",
    r"\son[a-z]+\s*=": "behaviour stands in static/js",
    r"javascript:": "a link goes somewhere",
    r"hx-on|hx-vals\s*=\s*[\"']js:|hx-trigger\s*=\s*[\"'][^\"']*\[": "htmx would evaluate it",
    # Django's own help texts are HTML, written by Django and by us.
    r"(?<!help_text)\|\s*safe\b|\|\s*safeseq\b|autoescape\s+off": "whatever is shown is escaped",
    r"(src|href|action)\s*=\s*[\"'](https?:)?//(?![^\"']*example\.)": "nothing is loaded from elsewhere",
}


def pages() -> list[Path]:
    """What a browser is shown: not mail, and not text, which nothing escapes."""
    return [path for path in templates() if path.suffix != ".txt" and "email" not in path.parts]


@pytest.mark.parametrize("path", templates(), ids=name)
def test_a_template_parses(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    get_template("/".join(parts[parts.index("templates") + 1 :]))


@pytest.mark.parametrize(("pattern", "reason"), FORBIDDEN.items())
def test_no_template_does_what_is_forbidden(pattern: str, reason: str) -> None:
    found = [
        f"{name(path)}: {match.group().strip()}"
        for path in pages()
        for match in re.finditer(pattern, path.read_text(), re.IGNORECASE)
    ]
    assert not found, reason


def test_a_customers_name_turns_no_words_of_ours_around() -> None:
    """A name may be written from right to left, which would take the punctuation after it along."""
    bare = re.compile(r"[\w“:·,] ?\{\{ [a-z_.]*(key|organization|customer|original)\.name \}\}")
    found = [
        f"{name(path)}: {match.group()}"
        for path in pages()
        for line in path.read_text().splitlines()
        if "page_title" not in line  # a title has no elements
        for match in bare.finditer(re.sub(r"<[^>]*=\"[^>]*>", "", line))
    ]
    assert found == []


@pytest.mark.parametrize(
    "error", ["400.html", "403.html", "403_csrf.html", "404.html", "500.html", "503.html"]
)
def test_each_error_has_a_page_of_ours(error: str) -> None:
    found = get_template(error)
    assert Path(found.origin.name).is_relative_to(ROOT / "templates")  # type: ignore[attr-defined]  # the Django backend's


def test_every_form_that_posts_has_its_token() -> None:
    forms = re.compile(
        r"<form\b[^>]*method\s*=\s*[\"']post[\"'][^>]*>(.*?)</form>", re.IGNORECASE | re.DOTALL
    )
    found = [
        name(path)
        for path in pages()
        for match in forms.finditer(path.read_text())
        if "csrf_token" not in match.group(1)
    ]
    assert not found


def test_templates_are_djangos() -> None:
    assert isinstance(engines["django"], DjangoTemplates)
    assert templates()
