"""Kill -9 of everything under load: what was answered 200, calls and reported events, is counted once."""

from pathlib import Path

import pytest
from django.db.models import Sum

from tests.builders import environment, key, organization
from tests.faults import events, kill
from usage.models import Rollup, SecretUse, Segment, Spool


@pytest.mark.django_db(transaction=True)
def test_every_answered_call_is_counted_once(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = key(organization("acme"))
    tally = kill.run(3, issued.plaintext, environment(), tmp_path / "log")
    sums = Rollup.objects.filter(key=issued.key, outcome="VALID").aggregate(
        calls=Sum("calls"), quantity=Sum("quantity")
    )
    with capsys.disabled():
        print(f"\n{kill.figures(tally, sums['calls'])}", end=" ")
    assert tally.total > 100
    assert tally.repeated == tally.refused == 0
    assert tally.total <= sums["calls"] <= tally.total + tally.in_doubt
    assert sums["quantity"] == kill.COST * sums["calls"]
    assert SecretUse.objects.get().calls == sums["calls"]
    # The same, journal by journal.
    doubt = 0
    for spool, answered in tally.answered.items():
        segments = Segment.objects.filter(spool=spool)
        counted = sum(segment.sums.get("VALID/requests", [0, 0])[0] for segment in segments)
        assert counted >= answered
        doubt += counted - answered
    assert doubt <= tally.in_doubt
    assert not Spool.objects.filter(finished_at=None).exists()
    assert list(journal_dir.glob("*.journal*")) == []


@pytest.mark.django_db(transaction=True)
def test_every_acknowledged_event_is_counted_once(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acme = organization("acme")
    reporter = key(acme, name="Reporter", scopes=("portal:report",)).plaintext
    used = key(acme).key
    reports = events.run(1, used, reporter, environment(), tmp_path / "log", seed=1)
    with capsys.disabled():
        print(f"\n{events.figures(reports, 1, 0)}", end=" ")
    assert events.wrong(reports, used) == []
    assert len(reports.acknowledged) > 20
