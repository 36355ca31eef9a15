"""Several keys at once in a browser: chosen by keyboard, asked about, changed."""

from collections.abc import Callable

from tests import builders
from tests.e2e.conftest import Portal, Visitor
from tests.e2e.test_every_page import violations


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
