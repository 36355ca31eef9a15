"""`verify`: which key is this, and may it make this call?

It reads and decides; it counts nothing, writes nothing and raises nothing that the caller must know.
The checks are in the order of the contract: what is presented, the key's state, the organization, then
address, environment and scopes.
"""

from collections.abc import Sequence

from keys import tokens
from keys.directory import Directory, Unavailable
from keys.networks import contains, parse_address
from keys.records import SecretRecord
from keys.verdicts import Code, Verdict, new_verdict


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
    if not credential:
        return Verdict(Code.MISSING_CREDENTIAL)
    if len(credential) > tokens.MAX_LENGTH:
        return Verdict(Code.MALFORMED)
    digest = tokens.digest(credential)
    try:
        secret = directory.recall(digest)
        if secret is None:
            # The checksum costs more than the look-up, so only a miss pays for it.
            if tokens.parse(credential) is None:
                ours = directory.begins_like_ours(credential)
                return Verdict(Code.MALFORMED if ours or directory.knows_imports else Code.UNAVAILABLE)
            secret = directory.ask(digest)
    except Unavailable:
        return Verdict(Code.UNAVAILABLE)
    if secret is None:
        return Verdict(Code.UNKNOWN)
    return judge(secret, now=now, scopes=scopes, environment=environment, address=address)


def judge(
    secret: SecretRecord,
    *,
    now: float,
    scopes: Sequence[str] = (),
    environment: str = "",
    address: str = "",
) -> Verdict:
    """The verdict on a secret that was found; arguments as for `verify`."""
    key = secret.key
    if key.revoked:
        return Verdict(Code.REVOKED, secret)
    if now >= key.expires_at:
        return Verdict(Code.EXPIRED, secret)
    if now >= secret.stops_at:
        return Verdict(Code.REVOKED, secret, "This secret was replaced by a rotation and has stopped.")
    if key.disabled:
        return Verdict(Code.DISABLED, secret)
    if key.organization.suspended:
        return Verdict(Code.ORGANIZATION_SUSPENDED, secret)
    if key.networks and not contains(key.networks, parse_address(address)):
        return Verdict(Code.IP_NOT_ALLOWED, secret)
    if environment and environment != key.environment:
        return Verdict(
            Code.ENVIRONMENT_MISMATCH,
            secret,
            f"This is a {key.environment} key; the call needs {environment}.",
        )
    for scope in scopes:
        if scope not in key.scopes:
            lacking = " ".join(name for name in sorted(set(scopes)) if name not in key.scopes)
            return Verdict(Code.INSUFFICIENT_SCOPE, secret, f"Missing scope: {lacking}.")
    return new_verdict((Code.VALID, secret, ""))
