"""What every template may use."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def portal(request: HttpRequest) -> dict[str, Any]:
    return {"portal_name": settings.PORTAL_NAME, "portal_url": settings.PORTAL_URL}
