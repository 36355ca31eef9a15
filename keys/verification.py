"""`verify`: which key is this, and may it make this call?

It reads and decides; it counts nothing, writes nothing and raises nothing that the caller must know.
The checks are in the order of the contract: what is presented, the key's state, the organization, then
address, environment and scopes. Last comes a brownout, which refuses only what would be allowed.
"""

from collections.abc import Sequence

from keys.directory import STALE, UNHEARD, Directory, Unavailable
from keys.networks import contains, parse_address
from keys.records import SecretRecord, brownout_until, moment_text
from keys.tokens import MAX_LENGTH, is_well_formed
from keys.verdicts import VALID, Code, Facts, Verdict

# Names of their own, as `VALID`: floods come to these.
MALFORMED, UNKNOWN, UNAVAILABLE, MISSING = (
    Code.MALFORMED,
    Code.UNKNOWN,
    Code.UNAVAILABLE,
    Code.MISSING_CREDENTIAL,
)


def verify(
    credential: str,
    *,
    directory: Directory,
    now: float,
    scopes: Sequence[str] = (),
    environment: str = "",
    address: str = "",
) -> Verdict:
    """The verdict on one credential.

    `now` is epoch seconds; `scopes` are all needed; `environment` empty means either; `address` is the
    client's, as text. When the keys cannot be known right now the code is UNAVAILABLE.
    """
    return Verdict(*decide(credential, directory, now, scopes, environment, address))


def decide(
    credential: str,
    directory: Directory,
    now: float,
    scopes: Sequence[str],
    environment: str,
    address: str,
) -> Facts:
    """As `verify`; what a verdict is made of."""
    if not credential:  # and so nobody's, whatever digests were imported
        return MISSING, None, ""
    found = directory.recall(credential)
    if found is STALE:
        return MALFORMED if len(credential) > MAX_LENGTH else UNAVAILABLE, None, ""
    if found is UNHEARD:
        # The checksum costs more than the look-up, so only a miss pays for it.
        if not is_well_formed(credential):
            ours = directory.begins_like_ours(credential) or directory.knows_imports
            return MALFORMED if ours or len(credential) > MAX_LENGTH else UNAVAILABLE, None, ""
        if directory.will_not_ask():
            return UNAVAILABLE, None, ""
        try:
            found = directory.ask(credential)
        except Unavailable:
            return UNAVAILABLE, None, ""
    if found is None:
        return UNKNOWN, None, ""
    return judge(found, now, scopes, environment, address)


def judge(secret: SecretRecord, now: float, scopes: Sequence[str], environment: str, address: str) -> Facts:
    """On a secret that was found; arguments as for `verify`."""
    key = secret.key
    if key.revoked:
        return Code.REVOKED, secret, ""
    if now >= key.expires_at:
        return Code.EXPIRED, secret, ""
    if now >= secret.stops_at:
        return Code.REVOKED, secret, "This secret was replaced by a rotation and has stopped."
    if key.disabled:
        return Code.DISABLED, secret, ""
    if key.organization.suspended:
        return Code.ORGANIZATION_SUSPENDED, secret, ""
    if key.networks and not contains(key.networks, parse_address(address)):
        return Code.IP_NOT_ALLOWED, secret, ""
    if environment and environment != key.environment:
        detail = f"This is a {key.environment} key; the call needs {environment}."
        return Code.ENVIRONMENT_MISMATCH, secret, detail
    lacking = [scope for scope in sorted(set(scopes)) if scope not in key.scopes]
    if lacking:
        return Code.INSUFFICIENT_SCOPE, secret, f"Missing scope: {' '.join(lacking)}."
    if until := brownout_until(key, now):
        end, expiry = moment_text(until), moment_text(key.expires_at)
        return Code.BROWNOUT, secret, f"An announced brownout until {end}: the key expires at {expiry}."
    return VALID, secret, ""
