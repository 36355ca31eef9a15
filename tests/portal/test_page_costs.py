"""What customers' pages may cost, by the pages and the customer that `tests.bench.pages` measures."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.bench import pages

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("keys", [1, 120])
def test_no_page_of_a_customer_takes_more_than_twelve_queries(keys: int) -> None:
    browser, acme, key, month = pages.prepare(keys, keys * 20)
    for name in pages.PAGES:
        path = pages.path(name, acme, key, month)
        browser.get(path)  # what a process or a session keeps is kept then
        with CaptureQueriesContext(connection) as captured:
            assert browser.get(path).status_code == 200, name
        assert len(captured) <= pages.MUST_QUERIES, (name, [query["sql"] for query in captured])
