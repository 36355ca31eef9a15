"""A limit holds exactly, however many call at once."""

from pathlib import Path

import pytest

from tests import builders
from tests.faults import limit
from tests.faults.server import Server


@pytest.mark.django_db(transaction=True)
def test_of_a_thousand_calls_at_once_one_worker_allows_exactly_the_limit(
    journal_dir: Path, tmp_path: Path
) -> None:
    organization = builders.organization("acme")
    # A second key in case that the hour ends while the first is tried.
    keys = [builders.key(organization, name=name, rates=["100/hour"]) for name in ("first", "second")]
    with Server(builders.environment(), "--workers", "1", "--no-worker", log=tmp_path / "log") as server:
        for issued in keys:
            outcome = limit.run(server.port, issued.plaintext, calls=1000)
            if len(outcome.hours) == 1:
                break
    assert outcome.statuses == {200: 100, 429: 900}
    assert outcome.without_retry == 0
    assert len(outcome.spools) == 1
