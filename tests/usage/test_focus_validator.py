"""FOCUS exports, read by the specification's own validator: `.ci/run` installs it in an environment of its
own and names it in `FOCUS_VALIDATOR`; without it these tests are skipped."""

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from keys import lifecycle
from tests import builders
from tests.usage.exported import MAY, export
from usage.billing import Period, credits

VALIDATOR = os.environ.get("FOCUS_VALIDATOR", "")
# One says that every InvoiceId must be null and the other that none may be, for the validator does not know
# whether there is an invoice. Nothing can pass both; statements are no invoices, so ours are null.
CONTRADICTORY = {"InvoiceId-C-004-C", "InvoiceId-C-005-C"}
SUPPORTED = "ACCOUNT_NAMING_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED"
TIERS = [{"up_to": 10, "unit_price": "0.02"}, {"up_to": None, "unit_price": "0.01"}]

pytestmark = pytest.mark.skipif(not VALIDATOR, reason="FOCUS_VALIDATOR names no validator")


def failed(file: Path) -> set[str]:
    """The rules that the file does not keep. The validator ends with 0 whatever it finds."""
    report = file.with_suffix(".xml")
    ran = subprocess.run(
        [
            *(VALIDATOR, "--data-file", str(file), "--validate-version", "1.2", "--block-download"),
            *("--focus-dataset", "CostAndUsage", "--applicability-criteria", SUPPORTED),
            *("--output-type", "unittest", "--output-destination", str(report)),
        ],
        # It looks for its rules from where it is started.
        cwd=next(Path(VALIDATOR).parent.parent.glob("lib/python*/site-packages")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), ran.stderr[-2000:]
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))  # our own file
    assert len(cases) > 300
    return {
        case.get("name", "").partition(" ")[0]
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }


@pytest.mark.parametrize("corrected", [False, True])
def test_the_validator_finds_nothing_but_its_two_contradictory_rules(
    db: None, journal_dir: Path, tmp_path: Path, corrected: bool
) -> None:
    builders.meter("hours", unit="hour", decimals=3)
    acme, globex, initech = (builders.organization(name) for name in ("acme", "globex", "initech"))
    price = {"model": "graduated", "tiers": TIERS, "included": 5}
    builders.subscription(acme, builders.version("basic", fee=3100, requests=price), Period(2026, 4).start)
    yen = builders.version("yen", currency="JPY", fee=1000, hours={"unit_price": "0.5"})
    builders.subscription(globex, yen, MAY.start)
    key = builders.key(acme).key
    builders.used(key, 40, MAY.start)
    builders.used(key, 10**15, MAY.start, meter="tokens")
    builders.used(builders.key(acme, environment="test").key, 7, MAY.start)
    builders.used(builders.key(globex).key, 1_500, MAY.start, meter="hours")
    builders.used(builders.key(initech).key, 3, MAY.start)  # without a plan
    if corrected:
        builders.used(key, 8, Period(2026, 4).start, booked=MAY.first_day)
        credits.give(
            lifecycle.command_actor(), acme, original=MAY, amount=500, currency="USD", reason="Sorry",
            now=builders.NOW,
        )  # fmt: skip
    file = tmp_path / "may.csv"
    export("--format", "focus", "--output", str(file))
    assert ("Correction" in file.read_text()) == corrected

    assert failed(file) <= CONTRADICTORY
