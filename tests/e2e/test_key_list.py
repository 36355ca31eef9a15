"""Keys in a browser: several chosen by keyboard, asked about and changed; a form that knows one's address."""

from collections.abc import Callable

from portal.pages import PAGE
from tests import builders
from tests.e2e.conftest import Portal, Visitor
from tests.e2e.look import violations


def test_keys_are_chosen_labelled_and_revoked(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice)
    keys = [builders.key(acme, name=f"Key {n}").key for n in range(3)]
    come = visitor(viewport={"width": 320, "height": 800}, color_scheme="dark")
    page = come.page
    portal.sign_in(come, alice)
    page.goto(f"{portal.url}/o/acme/keys/?sort=name")
    assert not page.get_by_role("button", name="Label…").is_visible()
    page.get_by_role("checkbox", name="Choose Key 0").focus()
    page.keyboard.press("Space")
    page.get_by_role("checkbox", name="Choose Key 2").check()
    assert page.get_by_text("2 keys chosen:").is_visible()
    assert violations(page) == []

    page.get_by_role("button", name="Label…").click()
    page.get_by_label("Name").fill("team")
    page.get_by_label("Value").fill("maps")
    assert violations(page) == []
    page.get_by_role("button", name="Change 2 keys").click()
    page.get_by_text("Labelled 2 keys.").wait_for()
    assert page.url.endswith("/keys/?sort=name")

    page.get_by_role("checkbox", name="Choose Key 0").check()
    page.get_by_role("button", name="Revoke…").click()
    assert violations(page) == []
    page.get_by_role("button", name="Revoke 1 key").click()
    page.get_by_text("Revoked 1 key.").wait_for()
    first, second, third = (builders.reloaded(key) for key in keys)
    assert first.revoked_at is not None
    assert third.revoked_at is None
    assert [key.metadata for key in (first, second, third)] == [{"team": "maps"}, {}, {"team": "maps"}]


def test_keys_of_all_pages_are_chosen_at_once(portal: Portal, visitor: Callable[..., Visitor]) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", owner=alice)
    for number in range(PAGE + 2):
        builders.key(acme, name=f"Key {number}")
    come = visitor()
    page = come.page
    portal.sign_in(come, alice)
    page.goto(f"{portal.url}/o/acme/keys/")
    everywhere = page.get_by_role("checkbox", name=f"All {PAGE + 2} on all pages")
    assert not everywhere.is_visible()
    every_row = page.get_by_role("checkbox", name="Choose all keys of this page")
    every_row.check()
    everywhere.check()
    assert page.get_by_text("All chosen:").is_visible()
    assert violations(page) == []
    every_row.uncheck()
    every_row.check()
    assert not everywhere.is_checked()
    everywhere.check()
    page.get_by_role("button", name="Revoke…").click()
    page.get_by_role("button", name=f"Revoke {PAGE + 2} keys").click()
    page.get_by_text(f"Revoked {PAGE + 2} keys.").wait_for()
    assert not acme.keys.filter(revoked_at=None).exists()


def test_ones_own_address_is_added_to_the_networks_once(
    portal: Portal, visitor: Callable[..., Visitor]
) -> None:
    alice = builders.user("alice")
    builders.organization("acme", owner=alice)
    come = visitor()
    portal.sign_in(come, alice)
    come.page.goto(f"{portal.url}/o/acme/keys/new/?name=From+a+link")
    come.page.get_by_text("Allowed networks, rate limits").click()
    networks = come.page.get_by_label("Allowed networks")
    networks.fill("203.0.113.0/24")
    for _ in range(2):
        come.page.get_by_role("button", name="Use my address").click()
    assert networks.input_value() == "203.0.113.0/24\n127.0.0.1"
    assert come.page.get_by_label("Name").input_value() == "From a link"
