"""A limit holds exactly, however many call at once."""

import json
from pathlib import Path

import pytest

from keys.lifecycle import Issued
from tests import builders, valkey
from tests.faults import limit
from tests.faults.load import one_for_each_worker
from tests.faults.server import Server
from usage.models import Rollup


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


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_share_windows_on_valkey_allow_exactly_the_limit(
    journal_dir: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    organization = builders.organization("acme")
    keys = [builders.key(organization, name=name, rates=["100/hour"]) for name in ("first", "second")]
    with valkey.running(tmp_path_factory.mktemp("v")) as shared:
        environment = builders.environment(VALKEY_URL=shared.url)
        with Server(environment, "--workers", "2", log=tmp_path / "log") as server:
            unlimited = builders.key(organization, name="free").plaintext
            for caller in one_for_each_worker(server.port, unlimited, 2).values():  # both are there
                caller.close()
            for issued in keys:
                outcome = limit.run(server.port, issued.plaintext, calls=1000)
                if len(outcome.hours) == 1:
                    break
            assert server.stop() == 0  # and drains
    assert outcome.statuses == {200: 100, 429: 900}
    assert outcome.without_retry == 0
    assert len(outcome.spools) == 2
    assert "each has rate windows of its own" not in (tmp_path / "log").read_text()
    assert {row.outcome: row.calls for row in Rollup.objects.filter(key=issued.key)} == {
        "VALID": 100,
        "RATE_LIMITED": 900,
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("chosen", ["local", "refuse"])
def test_without_valkey_the_choice_holds_and_readyz_tells(
    chosen: str, journal_dir: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    organization = builders.organization("acme")
    limited, free = builders.key(organization, name="one", rates=["100/hour"]), builders.key(organization)
    with valkey.running(tmp_path_factory.mktemp("v")) as shared:
        environment = builders.environment(VALKEY_URL=shared.url, VALKEY_AWAY=chosen)
        with Server(environment, "--no-worker", log=tmp_path / "log") as server:

            def call(issued: Issued) -> int:
                return server.get("/gateway/authorize", X_API_Key=issued.plaintext).status

            assert (call(limited), call(free)) == (200, 200)
            assert json.loads(server.get("/readyz").body) == {"ready": True, "reasons": []}
            shared.stop()
            refuses = chosen == "refuse"
            assert (call(limited), call(free)) == (503 if refuses else 200, 200)
            said = server.get("/readyz")
            facts = json.loads(said.body)
            assert said.status == (503 if refuses else 200)
            assert "Valkey does not answer" in str(facts["reasons"] if refuses else facts["warnings"])
            shared.start()
            server.wait_until_ready()
            assert call(limited) == 200


@pytest.mark.django_db(transaction=True)
def test_several_workers_without_valkey_are_warned_of(journal_dir: Path, tmp_path: Path) -> None:
    with Server(builders.environment(), "--workers", "2", "--no-worker", log=tmp_path / "log"):
        assert "portal.W005" in (tmp_path / "log").read_text()
