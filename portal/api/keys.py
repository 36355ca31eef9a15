"""`POST /v1/keys/verify` and `GET /v1/me`: what a key may do, asked about another and about oneself."""

import time

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Body, Router

from keys.models import Environment
from keys.records import KeyRecord
from keys.verdicts import Code
from portal.api.callers import CallRequest, caller
from portal.api.document import declare
from portal.api.schemas import (
    Allowance,
    KeyFacts,
    MeAnswer,
    MyKey,
    OrganizationFacts,
    VerifyAnswer,
    VerifyBody,
)
from usage import ledger, metering, problems
from usage.meters import REQUESTS

router = Router(tags=["keys"])

_SAY_WHERE = "This API key may be used from its own networks only; say in ip where the call comes from."


@router.post(
    "/keys/verify",
    auth=caller("portal:verify"),
    response=VerifyAnswer,
    exclude_unset=True,
    operation_id="verify",
    summary="Verify, limit and count a call in one",
    url_name="v1_verify",
    openapi_extra=declare("portal:verify", body=True),
)
def verify(request: HttpRequest, response: HttpResponse, asked: Body[VerifyBody]) -> VerifyAnswer:
    """May this key make this call? The call is counted, and its cost spent, when the answer is `VALID`.

    Always 200, whatever the verdict: `valid` and `code` tell it, `UNAVAILABLE` included (then ask again).
    Other statuses are about you, the caller. A key with `portal:verify` may ask about the keys of every
    organization of this portal; staff grant it to the provider's own services.
    """
    decision = metering.authorize(
        asked.key,
        scopes=asked.scopes or (),
        environment=asked.environment or "",
        cost=1 if asked.cost is None else asked.cost,
        meter=asked.meter or REQUESTS.name,
        resource=asked.resource or "",
        address=asked.ip or "",
        hold=asked.hold or False,
        now=time.time(),
    )
    verdict, standing = decision.verdict, decision.standing
    detail = verdict.detail or verdict.code.sentence
    if verdict.code is Code.IP_NOT_ALLOWED:
        detail = f"This API key may not be used from {asked.ip}." if asked.ip else _SAY_WHERE
    answer = VerifyAnswer(
        valid=verdict.code is Code.VALID, code=verdict.code.text, detail=detail, request=decision.request
    )
    if verdict.secret is not None:
        answer.key = KeyFacts.of(verdict.secret.key)
        answer.organization = OrganizationFacts.of(verdict.secret.key.organization)
    if standing is not None:
        answer.rate_limit = Allowance.of(standing)
    if decision.balance is not None:
        answer.quota = Allowance.of_quota(decision.balance)
    if retry := problems.retry_seconds(decision):
        answer.retry_after = retry
        response["Retry-After"] = str(retry)
    return answer


@router.get(
    "/me",
    auth=caller(),
    response=MeAnswer,
    exclude_unset=True,
    operation_id="me",
    summary="What the caller's key is and may do",
    url_name="v1_me",
    openapi_extra=declare(),
)
def me(request: CallRequest, response: HttpResponse) -> MeAnswer:
    """The key that is sent with this call, its organization and what is left of its limits."""
    secret, standing = request.auth.secret, request.auth.standing
    assert secret is not None
    answer = MeAnswer(key=MyKey.of(secret.key), organization=OrganizationFacts.of(secret.key.organization))
    if standing is not None:
        answer.rate_limit = Allowance.of(standing)
    _tell_quota(answer, secret.key)
    return answer


def _tell_quota(answer: MeAnswer, key: KeyRecord) -> None:
    """A call of the API costs nothing and so asks no quota; the ledger says how they stand."""
    if key.environment == Environment.LIVE and (key.quotas or key.organization.quotas):
        now = timezone.now()
        found = ledger.used(key.organization.id, key.id, key.quotas, key.organization.quotas, now)
        answer.quota = Allowance.of_used(min(found, key=lambda used: used.remaining), now)
