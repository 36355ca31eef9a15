"""What the provider looks like and where it is reached: text, logo, accent colour and contact, from settings.

Logo and colour are served by the portal itself, since its pages load nothing from elsewhere. Each is read
once, and its address has a version, so that browsers may keep it for good. `portal.brand_checks` refuses bad
ones at start.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.conf import settings

from portal import accent

MAX_LOGO: Final = 200_000  # bytes
# How a file of each kind begins, or what stands near its beginning.
KINDS: Final = {
    ".svg": ("image/svg+xml", b"<svg"),
    ".png": ("image/png", b"\x89PNG\r\n"),
    ".webp": ("image/webp", b"WEBP"),
}
_HEAD: Final = 4096  # bytes that count as the beginning


class BadLogo(ValueError):
    """The file cannot be a logo; the text says why."""


class Asset(NamedTuple):
    """What is served, and the version in its address."""

    body: bytes
    content_type: str
    version: str


def looks() -> dict[str, Any]:
    """What `layouts/error.html` and every other template may have, whatever the request."""
    return {
        "portal_name": settings.PORTAL_NAME,
        "portal_url": settings.PORTAL_URL,
        "brand": {"styles": styles, "logo": logo},
        "contact": contact(),
    }


def contact() -> str:
    """The address of a link by which customers reach the provider; empty without one."""
    to: str = settings.PORTAL_CONTACT
    return f"mailto:{to}" if "@" in to and "://" not in to else to


def styles() -> Asset | None:
    """The stylesheet with the provider's accent; None without one."""
    return _styles(settings.PORTAL_ACCENT) if settings.PORTAL_ACCENT else None


def logo() -> Asset | None:
    """The provider's logo; None without one, or while its file is none."""
    try:
        return read_logo(settings.PORTAL_LOGO) if settings.PORTAL_LOGO else None
    except BadLogo:  # it was refused at start, and was changed since
        return None


@lru_cache(maxsize=4)
def read_logo(path: str) -> Asset:
    """The file as it is served. Raises BadLogo."""
    content_type, mark = KINDS.get(Path(path).suffix.lower(), ("", b""))
    if not content_type:
        raise BadLogo(f"is not one of {', '.join(KINDS)}")
    try:
        body = Path(path).read_bytes() if Path(path).is_absolute() else b""
    except (OSError, ValueError):
        raise BadLogo("cannot be read") from None
    if not body:
        raise BadLogo("is not the absolute path of a file with something in it")
    if len(body) > MAX_LOGO:
        raise BadLogo(f"has {len(body):,} bytes, more than {MAX_LOGO:,}")
    if mark not in body[:_HEAD]:
        raise BadLogo("is not what its name says")
    return _asset(body, content_type)


@lru_cache(maxsize=4)
def _styles(text: str) -> Asset:
    return _asset(accent.stylesheet(accent.parse(text)).encode(), "text/css; charset=utf-8")


def _asset(body: bytes, content_type: str) -> Asset:
    return Asset(body, content_type, hashlib.sha256(body).hexdigest()[:12])
