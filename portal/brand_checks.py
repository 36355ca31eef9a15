"""System checks of what the provider says about itself, as `portal.checks` has them of everything else."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from portal import accent, brand
from portal.checks import is_loopback

# What stands in double quotes in every language of `keys.examples` and means only itself.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9/_.~%&=?+@,:-]*)?", re.ASCII)


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
