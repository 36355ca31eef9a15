"""A power cut at any moment: what was answered is there in `power` mode, and nothing is ever there twice."""

import pytest

from tests.faults import power


@pytest.mark.parametrize("mode", ["power", "process"])
def test_a_power_cut(mode: str) -> None:
    losses, wrong = power.run(600, power=mode == "power")
    assert wrong == []
    assert losses > 100  # or it tries nothing
