"""System checks of what the provider says about itself, as `portal.checks` has them of everything else."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

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
