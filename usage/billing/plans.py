"""What staff sell: plans, their versions and prices. One function an act, one transaction, one audit event.

A version is a draft until it is published, and never changes afterwards: `publish` alone lets it be
subscribed to. Nothing here knows who does.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from django.db import IntegrityError, transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict, Invalid
from keys.lifecycle.actors import require_staff
from keys.lifecycle.organizations import clean_slug
from keys.lifecycle.rules import clean_text
from keys.models import Policy
from usage import meters
from usage.billing import money
from usage.models import Plan, PlanVersion, Price, PricingModel

MAX_MINOR: Final = 10**15  # of a fee, in minor units
MAX_QUANTITY: Final = 2**63 - 1
MAX_PRICES: Final = 200
MAX_TIERS: Final = 50
_MAX_PRICE: Final = Decimal(10**12)


class PriceSpec(NamedTuple):
    """A price as staff define it; quantities in the meter's smallest unit, prices as plain decimals."""

    meter: str
    resource: str = ""
    model: str = PricingModel.PER_UNIT.value
    unit_price: str = ""
    package: int | None = None
    included: int = 0
    tiers: Sequence[tuple[int | None, str]] = ()


def create_plan(actor: Actor, *, slug: str, name: str, policy: Policy, now: dt.datetime) -> Plan:
    """A new plan, without a version yet. Staff only."""
    require_staff(actor)
    plan = Plan(slug=clean_slug(slug), name=_clean_name(name), policy=policy, created_at=now)
    try:
        with transaction.atomic():
            plan.save(force_insert=True)
            data = {"plan": plan.slug, "name": plan.name, "policy": policy.slug}
            audit.append("plan.created", actor=actor, at=now, data=data)
    except IntegrityError:
        raise Conflict("A plan with this slug exists already.", "slug") from None
    return plan


def edit_plan(actor: Actor, plan: Plan, *, name: str, policy: Policy, now: dt.datetime) -> Plan:
    """Change its name, or the policy that those who subscribe from now on get. Staff only."""
    require_staff(actor)
    name = _clean_name(name)
    with transaction.atomic():
        plan = _locked(plan)
        before = {"name": plan.name, "policy": plan.policy.slug}
        after = {"name": name, "policy": policy.slug}
        if before != after:
            plan.name, plan.policy = name, policy
            plan.save(update_fields=["name", "policy"])
            changes = {
                field: [before[field], after[field]] for field in after if before[field] != after[field]
            }
            data = {"plan": plan.slug, "changes": changes}
            audit.append("plan.edited", actor=actor, at=now, data=data)
    return plan


def archive_plan(actor: Actor, plan: Plan, *, now: dt.datetime) -> Plan:
    """Let nobody new subscribe to it; who has subscribed stays. Staff only."""
    require_staff(actor)
    with transaction.atomic():
        plan = _locked(plan)
        if plan.archived_at is None:
            plan.archived_at = now
            plan.save(update_fields=["archived_at"])
            audit.append("plan.archived", actor=actor, at=now, data={"plan": plan.slug})
    return plan


def draft_version(
    actor: Actor, plan: Plan, *, currency: str, fee: int, prices: Iterable[PriceSpec] = (), now: dt.datetime
) -> PlanVersion:
    """A new version with these prices, to be edited until it is published. `fee` is a month's, in the
    currency's minor unit. Staff only."""
    require_staff(actor)
    with transaction.atomic():
        plan = _locked(plan)
        latest = plan.versions.order_by("-number").first()
        version = PlanVersion(plan=plan, number=latest.number + 1 if latest else 1, created_at=now)
        return _write(actor, version, "plan.version_drafted", currency, fee, prices, now)


def edit_draft(
    actor: Actor,
    version: PlanVersion,
    *,
    currency: str,
    fee: int,
    prices: Iterable[PriceSpec],
    now: dt.datetime,
) -> PlanVersion:
    """Replace what an unpublished version costs. Staff only."""
    require_staff(actor)
    with transaction.atomic():
        version = _draft(version)
        return _write(actor, version, "plan.version_edited", currency, fee, prices, now)


def copy_version(actor: Actor, version: PlanVersion, *, now: dt.datetime) -> PlanVersion:
    """A draft that costs what this version does. Staff only."""
    version = PlanVersion.objects.select_related("plan").get(pk=version.pk)
    prices = [spec_of(price) for price in version.prices.all()]
    return draft_version(
        actor, version.plan, currency=version.currency, fee=version.fee, prices=prices, now=now
    )


def publish(actor: Actor, version: PlanVersion, *, now: dt.datetime) -> PlanVersion:
    """Let organizations subscribe to a draft, which never changes again. Staff only."""
    require_staff(actor)
    with transaction.atomic():
        version = _draft(version)
        version.published_at = now
        version.save(update_fields=["published_at"])
        audit.append("plan.published", actor=actor, at=now, data=_facts(version))
    return version


def spec_of(price: Price) -> PriceSpec:
    """A price as it would be defined anew."""
    tiers = [(tier["up_to"], tier["unit_price"]) for tier in price.tiers]
    return PriceSpec(
        price.meter, price.resource, price.model, price.unit_price, price.package, price.included, tiers
    )


def _write(
    actor: Actor,
    version: PlanVersion,
    act: str,
    currency: str,
    fee: int,
    prices: Iterable[PriceSpec],
    now: dt.datetime,
) -> PlanVersion:
    version.currency, version.fee = _clean_currency(currency), _clean_fee(fee)
    specs = [_clean_price(spec) for spec in prices]
    if len(specs) > MAX_PRICES:
        raise Invalid(f"A version can have at most {MAX_PRICES} prices.", "prices")
    if len({spec[:2] for spec in specs}) != len(specs):
        raise Invalid("Give one price for each meter and resource.", "prices")
    version.save()
    version.prices.all().delete()
    Price.objects.bulk_create(
        Price(
            version=version,
            **spec._replace(tiers=())._asdict()
            | {"tiers": [{"up_to": up_to, "unit_price": price} for up_to, price in spec.tiers]},
        )
        for spec in specs
    )
    audit.append(act, actor=actor, at=now, data=_facts(version))
    return version


def _facts(version: PlanVersion) -> dict[str, Any]:
    """For the audit: what the version costs."""
    return {
        "plan": version.plan.slug,
        "version": version.number,
        "currency": version.currency,
        "fee": version.fee,
        "prices": [
            spec_of(price)._asdict() | {"tiers": price.tiers}
            for price in version.prices.order_by("meter", "resource")
        ],
    }


def _locked(plan: Plan) -> Plan:
    rows = Plan.objects.select_for_update(of=("self",), no_key=True)
    return rows.select_related("policy").get(pk=plan.pk)


def _draft(version: PlanVersion) -> PlanVersion:
    rows = PlanVersion.objects.select_for_update(of=("self",), no_key=True)
    version = rows.select_related("plan").get(pk=version.pk)
    if version.published_at is not None:
        raise Conflict("A published version never changes; make a new one from it.")
    return version


def _clean_name(value: str) -> str:
    return clean_text(value, field="name", label="The name", maximum=100)


def _clean_currency(value: str) -> str:
    if not isinstance(value, str) or value not in money.DIGITS:
        raise Invalid("The currency is a code of ISO 4217 in capitals, e.g. EUR.", "currency")
    return value


def _clean_fee(value: int) -> int:
    return _clean_whole(value, "fee", "The fee", 0, MAX_MINOR)


def _clean_price(spec: PriceSpec) -> PriceSpec:
    """What is stored of a price: the parts that its model has, and no others."""
    if not isinstance(spec.meter, str) or spec.meter not in meters.read():
        raise Invalid("There is no such meter.", "meter")
    if spec.model not in PricingModel.values:
        raise Invalid("There is no such pricing model.", "model")
    tiered = spec.model in (PricingModel.GRADUATED, PricingModel.VOLUME)
    package = spec.model == PricingModel.PACKAGE
    return PriceSpec(
        meter=spec.meter,
        resource=clean_text(
            spec.resource, field="resource", label="The resource", maximum=128, required=False
        ),
        model=str(spec.model),
        unit_price="" if tiered else _clean_unit_price(spec.unit_price),
        package=_clean_whole(spec.package, "package", "The package", 1, MAX_QUANTITY) if package else None,
        included=_clean_whole(spec.included, "included", "What is included", 0, MAX_QUANTITY),
        tiers=_clean_tiers(spec.tiers) if tiered else (),
    )


def _clean_tiers(tiers: Sequence[tuple[int | None, str]]) -> list[tuple[int | None, str]]:
    if not 1 <= len(tiers) <= MAX_TIERS:
        raise Invalid(f"Give 1 to {MAX_TIERS} tiers.", "tiers")
    below, cleaned = 0, []
    for up_to, price in tiers[:-1]:
        end = _clean_whole(up_to, "tiers", "A tier’s end", below + 1, MAX_QUANTITY)
        cleaned.append((end, _clean_unit_price(price, "tiers")))
        below = end
    if tiers[-1][0] is not None:
        raise Invalid("The last tier has no end.", "tiers")
    return [*cleaned, (None, _clean_unit_price(tiers[-1][1], "tiers"))]


def _clean_unit_price(value: str, field: str = "unit_price") -> str:
    try:
        price = Decimal(value) if isinstance(value, str) and len(value) <= 30 else Decimal("NaN")
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or not 0 <= price <= _MAX_PRICE:
        raise Invalid("A price is a plain decimal from 0 on, e.g. 0.002.", field)
    text = money.plain(price)
    if len(text.partition(".")[2]) > money.MAX_DECIMALS:
        raise Invalid(f"A price has at most {money.MAX_DECIMALS} decimals.", field)
    return text.removeprefix("-")


def _clean_whole(value: int | None, field: str, label: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Invalid(f"{label} must be a whole number from {least} to {most}.", field)
    return value
