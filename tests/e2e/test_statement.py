"""A statement in a browser: it is printed from its page."""

from collections.abc import Callable

from tests import builders
from tests.e2e.conftest import Portal, Visitor
from tests.e2e.look import violations


def test_a_statement_is_printed_by_its_button(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice)
    month = builders.closed_month(acme, builders.key(acme).key)
    come = visitor()
    page = come.page
    portal.sign_in(come, alice)
    page.goto(f"{portal.url}/o/acme/billing/{month}/")
    page.evaluate("window.print = () => { document.title = 'on paper' }")
    page.get_by_role("button", name="Print").click()
    assert page.title() == "on paper"
    assert violations(page) == []
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Print").is_visible()
