"""Meters: quantities as whole numbers of the smallest unit, exactly."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.meters import MAX_QUANTITY, Meter

HOURS = Meter("hours", "hour", "Hours", decimals=3)


@given(st.integers(0, MAX_QUANTITY))
def test_a_quantity_comes_back_exactly(whole: int) -> None:
    assert HOURS.smallest(Decimal(whole).scaleb(-3)) == whole


@pytest.mark.parametrize(
    "text", ["NaN", "sNaN", "Infinity", "-Infinity", "-1", "-0.001", "1e400", "9007199254740.993"]
)
def test_what_cannot_be_counted_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a number from 0"):
        HOURS.smallest(Decimal(text))


@pytest.mark.parametrize("text", ["0.0001", "1.2345", "1e-400"])
def test_more_decimals_than_the_meter_has_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than 3 decimals"):
        HOURS.smallest(Decimal(text))
