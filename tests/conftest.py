"""Fixtures that every test may use."""

import importlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connections
from django.db.models.signals import post_migrate
from django.test import Client
from hypothesis import settings as hypothesis_settings
from pytest_django import Settings

from portal.models import User
from tests import builders
from usage import metering, resources

# A slow moment of a busy machine is no failure; in CI the same code always sees the same examples.
hypothesis_settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
hypothesis_settings.load_profile("house")


def _seed(using: str, **kwargs: Any) -> None:
    migration = importlib.import_module("keys.migrations.0002_seed")
    with connections[using].schema_editor() as editor:
        migration.seed(apps, editor)


@pytest.fixture(scope="session", autouse=True)
def _seeded_rows_survive_a_flush() -> None:
    """A test with real transactions ends with a flush of every table, those that a migration filled too.

    Django sends `post_migrate` after it: the migration's own function fills them again.
    """
    post_migrate.connect(_seed, sender=apps.get_app_config("keys"), weak=False)


def _not_skipped_in_ci[R: (pytest.TestReport, pytest.CollectReport)](report: R, path: Path) -> R:
    """A missing browser is a reason to skip for a developer; in CI it would hide what was never tried."""
    if report.skipped and "CI" in os.environ and "e2e" in path.parts:
        report.outcome = "failed"
        report.longrepr = f"Nothing of e2e is skipped in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _not_skipped_in_ci((yield), item.path)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _not_skipped_in_ci((yield), collector.path)


@pytest.fixture(autouse=True)
def _no_test_leaves_its_journal_to_the_next() -> Iterator[None]:
    """What a test made this process decide with (keys, windows, journal) or remember ends with the test."""
    yield
    metering.stop()
    resources.forget()


@pytest.fixture
def sam(db: None) -> User:
    """Of the staff."""
    return builders.staff("sam")


@pytest.fixture
def admin(client: Client, sam: User) -> Client:
    """Sam's browser, signed in."""
    return builders.signed_in(client, sam)


@pytest.fixture
def journal_dir(settings: Settings, tmp_path: Path) -> Path:
    """An empty folder of this test's own for journals; `USAGE_JOURNAL_DIR` names it."""
    folder = tmp_path / "journal"
    folder.mkdir()
    settings.USAGE_JOURNAL_DIR = folder
    return folder
