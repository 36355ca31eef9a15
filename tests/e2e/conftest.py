"""The browser of the tests that use one: Debian's Chromium, driven by Playwright."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session", autouse=True)
def _queries_beside_the_browser() -> Iterator[None]:
    """Playwright leaves an event loop running in this thread, in which Django then refuses to query.

    Until the end of the session: the loop outlives the last test with a browser.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    return {"executable_path": str(CHROMIUM), "args": ["--no-sandbox"]}


@pytest.fixture(scope="session")
def base_url() -> None:
    """In place of pytest-playwright's, which pytest 9.2 warns about."""
