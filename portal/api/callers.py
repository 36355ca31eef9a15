"""Who calls: the caller's own key is its credential, by the gateway's rules but in headers only.

A caller's calls are recorded at cost 0: they are seen in its usage, and neither bill nor spend a limit.
GATEWAY_NETWORKS does not count here, the key's own networks do.
"""

import time
from collections.abc import Callable

from django.http import HttpRequest

from keys.models import Key
from keys.verdicts import Code
from usage import client, credentials, metering


class Refused(Exception):
    """The caller may not make this call. `address` is where it seems to be."""

    def __init__(self, decision: metering.Decision, address: str) -> None:
        super().__init__(decision.code.text)
        self.decision = decision
        self.address = address


class CallRequest(HttpRequest):
    """A request that `caller` has let in."""

    auth: metering.Decision  # named by django-ninja


def calling_key(request: CallRequest) -> Key:
    """The caller's own row, with its organization and policy as they are now."""
    secret = request.auth.secret
    assert secret is not None
    return Key.objects.select_related("organization__policy").get(pk=secret.key.id)


def caller(*scopes: str) -> Callable[[HttpRequest], metering.Decision]:
    """For `auth=` of an operation: let in keys that have all of `scopes`, or raise Refused.

    django-ninja asks before it reads the body, so that who has no key cannot make anyone wait for one.
    """

    def authenticate(request: HttpRequest) -> metering.Decision:
        assert request.resolver_match is not None
        resource = f"/{request.resolver_match.route}"
        address = client.address(request.META)
        agent = request.META.get("HTTP_USER_AGENT", "")
        credential = credentials.presented(request.META)
        if credential is None:
            decision = metering.refuse(
                Code.MULTIPLE_CREDENTIALS, resource=resource, address=address, user_agent=agent
            )
        else:
            decision = metering.authorize(
                credential,
                scopes=scopes,
                cost=0,
                resource=resource,
                address=address,
                user_agent=agent,
                now=time.time(),
            )
        if decision.code is not Code.VALID or decision.secret is None:
            raise Refused(decision, address)
        return decision

    return authenticate
