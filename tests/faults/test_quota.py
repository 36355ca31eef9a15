"""A hard quota holds exactly, whoever is killed."""

from pathlib import Path

import pytest
from django.db.models import Sum

from tests import builders
from tests.faults import quota
from usage.models import QuotaLease, QuotaUse, Rollup


@pytest.mark.django_db(transaction=True)
def test_killed_workers_neither_exceed_a_quota_nor_keep_any_of_it(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = builders.key(builders.organization("acme"), quotas=[f"{quota.LIMIT}/month"])
    tally = quota.run(3, issued.plaintext, builders.environment(), tmp_path / "log")
    valid = Rollup.objects.filter(key=issued.key, outcome="VALID")
    counted = valid.aggregate(sum=Sum("quantity"))["sum"]
    with capsys.disabled():
        print(f"\n{quota.figures(3, tally, counted)}", end=" ")
    assert quota.judge(tally, counted) == []
    assert QuotaUse.objects.get().spent == quota.LIMIT
    assert not QuotaLease.objects.exists()
