"""Which prefixes keys of this portal have, and rules by which other people's scanners find such keys.

A key made under an earlier `KEY_PREFIX` stays valid, so earlier prefixes stay in the rules. A rule finds what
looks like a key; only detect-secrets can also check the checksum.
"""

import json
from collections.abc import Callable, Collection

from django.conf import settings

from keys import tokens
from keys.models import Environment, Secret


def known_prefixes() -> list[str]:
    """The portal's prefix and those of all keys that it ever made, sorted; imported keys have none."""
    earlier = Secret.objects.exclude(prefix="").order_by().values_list("prefix", flat=True).distinct()
    return sorted({settings.KEY_PREFIX, *earlier})


def regex(prefixes: Collection[str], name: str) -> str:
    """The bare regular expression."""
    return f"{tokens.pattern(prefixes)}\n"


def gitleaks(prefixes: Collection[str], name: str) -> str:
    """A configuration for gitleaks 8 (`--config`), beside its own rules."""
    return f"""\
# gitleaks detect --config this-file
title = {_quoted(f"Keys of {name}")}

[extend]
useDefault = true

[[rules]]
id = "portal-api-key"
description = {_quoted(f"API key of {name}: report and revoke it")}
regex = '''{tokens.pattern(prefixes)}'''
keywords = {json.dumps(_keywords(prefixes))}
entropy = 3.5
"""


def trufflehog(prefixes: Collection[str], name: str) -> str:
    """A custom detector for TruffleHog 3 (`--config`)."""
    return f"""\
# trufflehog git file://. --config this-file --no-verification
detectors:
  - name: {_quoted(f"{name} API key")}
    keywords: {json.dumps(_keywords(prefixes))}
    regex:
      key: '({tokens.pattern(prefixes)})'
"""


def detect_secrets(prefixes: Collection[str], name: str) -> str:
    """A plugin for detect-secrets 1 (`-p`). It is code, so it also checks the checksum."""
    return f'''\
"""detect-secrets scan -p this_file.py"""

import re
import zlib

from detect_secrets.plugins.base import RegexBasedDetector

ALPHABET = "{tokens.ALPHABET}"


def is_well_formed(key):
    number, checksum = zlib.crc32(key[:-6].encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        checksum = ALPHABET[digit] + checksum
    return key.endswith(checksum)


class PortalKeyDetector(RegexBasedDetector):
    secret_type = {_quoted(f"{name} API key")}
    denylist = [re.compile(r"{tokens.pattern(prefixes)}")]

    def analyze_string(self, string):
        yield from filter(is_well_formed, super().analyze_string(string))
'''


FORMATS: dict[str, Callable[[Collection[str], str], str]] = {
    "gitleaks": gitleaks,
    "detect-secrets": detect_secrets,
    "trufflehog": trufflehog,
    "regex": regex,
}


def _keywords(prefixes: Collection[str]) -> list[str]:
    return [f"{prefix}_{environment}_" for prefix in sorted(prefixes) for environment in Environment.values]


def _quoted(text: str) -> str:
    """A string that TOML, YAML and Python read alike: JSON's."""
    return json.dumps(text)
