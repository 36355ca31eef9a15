"""The environment of the servers that are measured: production's settings, nothing of the developer's own."""

import os
from pathlib import Path

SECRET_KEY = "for-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789"  # as tests/settings.py has it
ROOT = Path(__file__).parent.parent.parent


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "ENV_FILE": os.devnull,
        "SECRET_KEY": SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "PYTHONPATH": str(ROOT),
        **more,
    }
