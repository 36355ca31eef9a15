"""GitHub's secret-scanning partner protocol: is this body signed by GitHub?

The signature is ECDSA over P-256 with SHA-256 of the raw body (FIPS 186-5; the partner program's own
documentation has the headers). GitHub's public keys are fetched when one is needed, kept for an hour, and
asked for again at most once a minute: whoever makes up key identifiers makes nobody wait or fetch.
"""

import binascii
import json
import logging
import threading
import time
import urllib.request
from base64 import b64decode
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.conf import settings

logger = logging.getLogger(__name__)

FRESH: Final = 3600.0  # seconds that keys are used without another look
STALE: Final = 86_400.0  # and are used though GitHub does not answer
PAUSE: Final = 60.0  # between two looks
TIMEOUT: Final = 5.0
LARGEST: Final = 256 * 1024  # bytes of the list of keys
LONGEST: Final = 512  # characters of a header

type Keys = dict[str, EllipticCurvePublicKey]


class Unavailable(Exception):
    """GitHub's keys are not known right now."""


class PublicKeys:
    """GitHub's public keys by identifier, as this process knows them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: Keys = {}
        self._read_at = self._asked_at = -STALE

    def get(self, identifier: str, now: float) -> EllipticCurvePublicKey | None:
        """The key of this name, None if GitHub has none; `now` is seconds on a clock that never goes back.

        Raises Unavailable if the keys cannot be known.
        """
        if identifier not in self._keys or now - self._read_at > FRESH:
            self._look(now)
        if now - self._read_at > STALE:
            raise Unavailable
        return self._keys.get(identifier)

    def _look(self, now: float) -> None:
        """Ask GitHub unless somebody did a moment ago. Who has nothing to go by waits for whoever asks."""
        wait = TIMEOUT + 1 if now - self._read_at > STALE else 0
        if self._lock.acquire(timeout=wait):
            try:
                if now - self._asked_at >= PAUSE:
                    self._asked_at = now
                    self._ask(now)
            finally:
                self._lock.release()

    def _ask(self, now: float) -> None:
        try:
            self._keys = _parse(_fetch(settings.GITHUB_KEYS_URL))
            self._read_at = now
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            logger.warning("GitHub's public keys cannot be read: %s", type(error).__name__)


public_keys = PublicKeys()


def is_signed(body: bytes, identifier: str, signature: str) -> bool:
    """Did GitHub sign exactly this body? `signature` is base64 of DER. Raises Unavailable."""
    if not identifier or not 0 < len(signature) <= LONGEST or len(identifier) > LONGEST:
        return False
    try:
        der = b64decode(signature, validate=True)
    except (binascii.Error, ValueError):  # ValueError: letters beyond ASCII
        return False
    key = public_keys.get(identifier, time.monotonic())
    if key is None:
        return False
    try:
        key.verify(der, body, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _parse(content: bytes) -> Keys:
    """The P-256 keys of the list; what else is in it is left out. Raises ValueError if it is no list."""
    found: Keys = {}
    parsed = json.loads(content)
    listed = parsed.get("public_keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise ValueError("there is no list of keys")
    for each in listed:
        name, pem = (each.get("key_identifier"), each.get("key")) if isinstance(each, dict) else (None, None)
        if isinstance(name, str) and isinstance(pem, str):
            try:
                key = load_pem_public_key(pem.encode())
            except (ValueError, UnsupportedAlgorithm):
                continue
            if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
                found[name] = key
    return found


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The address of the keys is the operator's word; nobody else sends us elsewhere."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(  # noqa: S310  # a system check holds it to https
        url, headers={"Accept": "application/json", "User-Agent": "Latchkey"}
    )
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as response:
        content: Any = response.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("the list of keys is too long")
    return bytes(content)
