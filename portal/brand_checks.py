"""System checks of what the provider says about itself, as `portal.checks` has them of everything else."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator, validate_email

from portal import accent, brand
from portal.checks import is_loopback

# What stands in double quotes in every language of `keys.examples` and means only itself.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9/_.~%&=?+@,:-]*)?", re.ASCII)

MAX_NAME: Final = 60
MAX_TEXT: Final = 1000
_validate_url = URLValidator(schemes=["https"])
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, separators of lines
_TAG = re.compile(
    r"</?(?:a|b|br|div|em|h[1-6]|i|img|li|ol|p|script|span|strong|style|ul)\b[^<>]*>", re.IGNORECASE
)


@register("portal")
def api_url(**kwargs: Any) -> Iterator[CheckMessage]:
    if not settings.API_URL:
        return
    hint = "Give one whole address of your API that any key may read, e.g. https://api.example.com/v1/status"
    try:
        url = urlsplit(settings.API_URL)
        host = (_PLAIN_URL.fullmatch(settings.API_URL) and url.port != 0 and url.hostname) or ""
    except ValueError:
        host = ""
    if not host:
        yield Error("API_URL is not an address that an example could call.", hint=hint, id="portal.E024")
    elif url.scheme == "http" and not is_loopback(host):
        yield Error("API_URL is plain http: keys could be read on the way.", hint=hint, id="portal.E024")


@register("portal")
def portal_name(**kwargs: Any) -> Iterator[CheckMessage]:
    name = settings.PORTAL_NAME
    wrong = "is empty" if not name.strip() else _unfit(name, MAX_NAME)
    if wrong:
        hint = f"One line of plain text of at most {MAX_NAME} characters, for titles, mails and headings."
        yield Error(f"PORTAL_NAME {wrong}.", hint=hint, id="portal.E042")


@register("portal")
def portal_text(**kwargs: Any) -> Iterator[CheckMessage]:
    if wrong := _unfit(settings.PORTAL_TEXT, MAX_TEXT, breaks="\r\n"):
        hint = f"Plain text of at most {MAX_TEXT} characters; an empty line begins a paragraph."
        yield Error(f"PORTAL_TEXT {wrong}.", hint=hint, id="portal.E043")


def _unfit(text: str, most: int, *, breaks: str = "") -> str:
    """Why people could not read this text as it was meant; empty if they can."""
    if len(text) > most:
        return f"has {len(text):,} characters, more than {most:,}"
    if any(unicodedata.category(each) in _UNSHOWN and each not in breaks for each in text):
        return "has characters that cannot be shown"
    if _TAG.search(text):
        return "has HTML in it, which would be shown as it is written"
    return ""


@register("portal")
def portal_contact(**kwargs: Any) -> Iterator[CheckMessage]:
    to = settings.PORTAL_CONTACT
    if not to:
        return
    try:
        (validate_email if brand.contact().startswith("mailto:") else _validate_url)(to)
    except ValidationError:
        hint = "Give an email address, or an https URL of a page where customers reach you."
        yield Error(
            "PORTAL_CONTACT is neither an email address nor an https URL.", hint=hint, id="portal.E044"
        )


@register("portal")
def portal_accent(**kwargs: Any) -> Iterator[CheckMessage]:
    if not settings.PORTAL_ACCENT:
        return
    try:
        accent.parse(settings.PORTAL_ACCENT)
    except accent.BadAccent as bad:
        hint = "One colour for both pages, or light,dark. E.g. PORTAL_ACCENT="
        yield Error(
            f"PORTAL_ACCENT={settings.PORTAL_ACCENT} {bad.sentence}.",
            hint=hint + (bad.better or "#4f46e5,#7c74ff"),
            id="portal.E025",
        )


@register("portal")
def portal_logo(**kwargs: Any) -> Iterator[CheckMessage]:
    if not settings.PORTAL_LOGO:
        return
    try:
        brand.read_logo(settings.PORTAL_LOGO)
    except brand.BadLogo as bad:
        yield Error(
            f"PORTAL_LOGO={settings.PORTAL_LOGO} {bad}.",
            hint="Give the absolute path of a small SVG, PNG or WebP file that the server's user may read.",
            id="portal.E026",
        )
