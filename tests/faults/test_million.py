"""Calls through a real nginx: what it let through is what is journalled, rolled up and billed."""

from pathlib import Path

import pytest

from tests import builders
from tests.e2e import proxies
from tests.faults import million


@pytest.mark.django_db(transaction=True)
def test_nginx_journals_rollups_and_export_agree(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if proxies.binary("nginx") is None:
        pytest.skip("nginx is not installed")
    issued = builders.key(builders.organization("acme"), scopes=(million.SCOPE,))
    counts = million.run(10_000, issued.plaintext, builders.environment(), tmp_path)
    with capsys.disabled():
        print(f"\n{million.figures(counts)}", end=" ")
    assert counts.are_equal
    assert counts.client == 10_000
