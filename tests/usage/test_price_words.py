"""Prices in words, as customers and staff read them."""

import pytest

from usage.billing.plans import PriceSpec
from usage.billing.price_words import units, words
from usage.meters import REQUESTS, Meter

KNOWN = {"requests": REQUESTS, "gpu": Meter("gpu", "GPU hour", "GPU time", decimals=3)}


@pytest.mark.parametrize(
    ("spec", "included", "lines"),
    [
        (PriceSpec("requests", unit_price="0.002"), "", ["0.002 USD a request"]),
        (PriceSpec("gpu", unit_price="1.5", included=2500), "2.5", ["1.5 USD a GPU hour"]),
        (
            PriceSpec("requests", model="package", unit_price="5", package=1000, included=10**15),
            "1,000,000,000,000,000",
            ["5 USD for each begun 1,000"],
        ),
        (
            PriceSpec("requests", model="graduated", tiers=[(10, "3"), (20, "2"), (None, "1")]),
            "",
            ["The first 10: 3 USD a request", "Up to 20: 2 USD a request", "Beyond: 1 USD a request"],
        ),
        (
            PriceSpec("requests", model="volume", tiers=[(10, "3"), (None, "1")]),
            "",
            ["All, if up to 10: 3 USD a request", "All, if more: 1 USD a request"],
        ),
        (PriceSpec("gpu", model="volume", tiers=[(None, "1")]), "", ["1 USD a GPU hour"]),
        (PriceSpec("lost", unit_price="1"), "", ["1 USD a unit"]),
    ],
)
def test_each_model_is_said_in_words(spec: PriceSpec, included: str, lines: list[str]) -> None:
    (said,) = words([spec], KNOWN, "USD")
    assert (said.included, said.lines) == (included, lines)


def test_quantities_are_in_units_without_idle_zeros() -> None:
    assert [units(each, KNOWN["gpu"]) for each in (0, 1, 1500, 10**9, -2000)] == [
        *("0", "0.001", "1.5", "1,000,000", "-2"),
    ]
