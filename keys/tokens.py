"""Key material: mint, parse, checksum, digest.

Nothing else in the project makes, parses or hashes a key. A secret is
`<prefix>_<environment>_<32 base62 random><6 base62 checksum>`; the checksum is the CRC-32 of everything
before it, so that a mistyped or made-up secret is recognised without asking a database. What is stored
is one SHA-256 of the whole: 190 random bits leave nothing for a slow hash to add (NIST SP 800-63B,
section 5.1.1.2, asks for stretching of memorised secrets only).
"""

import hashlib
import re
import secrets
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

try:
    import _sha2 as _fastest  # type: ignore[import-not-found]  # nobody has its types
except ImportError:
    _fastest = hashlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ENVIRONMENTS = ("live", "test")
RANDOM_LENGTH = 32  # log2(62) * 32 = 190.5 bits
CHECKSUM_LENGTH = 6  # 62**6 > 2**32
HINT_LENGTH = 4
HINT = slice(-CHECKSUM_LENGTH - HINT_LENGTH, -CHECKSUM_LENGTH)  # where a secret has it
MAX_PREFIX_LENGTH = 16
LONGEST = MAX_PREFIX_LENGTH + len("_live_") + RANDOM_LENGTH + CHECKSUM_LENGTH
LENGTHS = frozenset(range(LONGEST - MAX_PREFIX_LENGTH + 1, LONGEST + 1))  # that a secret of ours may have
# Long enough for every secret of ours and for imported ones; anything longer is not a credential.
MAX_LENGTH = 512

_FORMAT = re.compile(
    r"(?P<prefix>[a-z][a-z0-9]{0,15})_(?P<environment>live|test)_"
    r"(?P<random>[0-9A-Za-z]{32})(?P<checksum>[0-9A-Za-z]{6})",
    re.ASCII,
)
# Wider than the format: also what was cut short or mistyped is still most of a secret.
_LOOKS_LIKE_ONE = re.compile(r"([a-z][a-z0-9]{0,15}_(?:live|test)_)[0-9A-Za-z]{8,}", re.ASCII)
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
# The same without groups, which take time.
_looks_well_formed = re.compile(r"[a-z][a-z0-9]{0,15}_(?:live|test)_[0-9A-Za-z]{38}", re.ASCII).fullmatch
_TAIL_LENGTH = RANDOM_LENGTH + CHECKSUM_LENGTH
# What stood before that in texts that looked well-formed: `lk_live_`, `lk_test_`, and a flood's few others.
_heads: set[str] = set()
_MOST_HEADS = 100
# What every secret of ours has behind its prefix. It begins with one literal byte, which is found quickly;
# a choice of prefixes would be ten times slower.
_BEHIND_PREFIX = re.compile(rb"_(?:live|test)_[0-9A-Za-z]{38}")
_crc32 = zlib.crc32  # not looked up for each call of the gateway
# CPython's own: of a text as short as a secret it makes a digest in three quarters of OpenSSL's time.
sha256: Callable[[bytes], "hashlib._Hash"] = _fastest.sha256
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Minted:
    """A new secret. `plaintext` is for the one answer that shows it; it never appears in a repr."""

    plaintext: str = field(repr=False)
    digest: bytes
    prefix: str
    hint: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """The public parts of a well-formed secret."""

    prefix: str
    environment: str
    hint: str


def base62(number: int, width: int) -> str:
    """`number` in base 62, zero-padded to `width` characters."""
    digits = []
    for _ in range(width):
        number, remainder = divmod(number, 62)
        digits.append(ALPHABET[remainder])
    return "".join(reversed(digits))


def random_base62(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def checksum(body: str) -> str:
    """The six characters that follow `body`: its CRC-32 (ISO 3309, as zlib has it) in base 62."""
    return base62(_crc32(body.encode("ascii")), CHECKSUM_LENGTH)


def digest(plaintext: str) -> bytes:
    """The 32 bytes that stand for a secret in the database and in memory."""
    return sha256(plaintext.encode("utf-8", "surrogatepass")).digest()


def is_prefix(text: str) -> bool:
    """May `text` be a `KEY_PREFIX`? A lower-case letter, then up to 15 letters or digits."""
    return _PREFIX.fullmatch(text) is not None


def mint(prefix: str, environment: str) -> Minted:
    """A new secret with 190 bits from the operating system.

    Raises ValueError for an environment or prefix that could not be parsed again.
    """
    if environment not in ENVIRONMENTS:
        raise ValueError(f"environment must be one of {', '.join(ENVIRONMENTS)}")
    if not is_prefix(prefix):
        raise ValueError("prefix must be a lower-case letter and up to 15 letters or digits")
    random = random_base62(RANDOM_LENGTH)
    body = f"{prefix}_{environment}_{random}"
    plaintext = body + checksum(body)
    return Minted(plaintext, digest(plaintext), prefix, random[-HINT_LENGTH:])


def is_well_formed(plaintext: str) -> bool:
    """Could it be a secret of ours, under any prefix? Of made-up ones, which come in floods, this is all that
    is looked at."""
    # Floods of well-formed keys pay for this, and a regular expression takes longer than all the rest.
    head = plaintext[:-_TAIL_LENGTH]
    if head not in _heads:
        if _looks_well_formed(plaintext) is None:
            return False
        if len(_heads) < _MOST_HEADS:
            _heads.add(head)
    try:
        content = plaintext.encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    if not content[-_TAIL_LENGTH:].isalnum():
        return False
    # `checksum`, two digits at a time.
    higher, last = divmod(_crc32(content[:-CHECKSUM_LENGTH]), 3844)
    return plaintext.endswith(f"{_PAIRS[higher // 3844]}{_PAIRS[higher % 3844]}{_PAIRS[last]}")


def parse(plaintext: str) -> Parsed | None:
    """The public parts of a secret of ours (under any prefix), or None if it cannot be one."""
    match = _FORMAT.fullmatch(plaintext) if is_well_formed(plaintext) else None
    return match and Parsed(match["prefix"], match["environment"], match["random"][-HINT_LENGTH:])


def find(content: bytes, prefixes: Collection[bytes]) -> Iterator[tuple[int, str]]:
    """Every secret of ours in `content`, under one of these prefixes and with a right checksum, as (offset,
    secret). Whatever stands around it, as `\\n` in JSON or `%3D` in a URL, does not hide it."""
    for match in _BEHIND_PREFIX.finditer(content):
        for prefix in prefixes:
            start = match.start() - len(prefix)
            if start >= 0 and content.startswith(prefix, start):
                secret = content[start : match.end()].decode("ascii")
                if is_well_formed(secret):
                    yield start, secret


def find_any(text: str) -> Iterator[str]:
    """Every secret of ours in `text`, under any prefix."""
    content = text.encode("utf-8", "surrogatepass")
    for match in _BEHIND_PREFIX.finditer(content):
        for start in range(match.start() - 1, max(match.start() - MAX_PREFIX_LENGTH, 0) - 1, -1):
            secret = content[start : match.end()].decode("utf-8", "replace")
            if is_well_formed(secret):
                yield secret


def pattern(prefixes: Iterable[str]) -> str:
    """A regular expression for secrets under these prefixes, in the syntax that all engines share."""
    names = sorted(prefixes)
    one_of = names[0] if len(names) == 1 else f"(?:{'|'.join(names)})"
    return f"{one_of}_(?:live|test)_[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}}"


def redact(text: str) -> str:
    """`text` with everything that looks like a secret cut to its public beginning."""
    return _LOOKS_LIKE_ONE.sub(r"\1[redacted]", text)


def new_id(kind: str) -> str:
    """A public identifier such as `key_4kD…`: 95 random bits, no order, nothing to guess."""
    return f"{kind}_{random_base62(16)}"
