"""Keys' tables in the admin: what cannot be done, what is found, and that no secret shows."""

import base64
import datetime as dt
import logging
import re
from hashlib import sha256
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.admin.audit import ACTS
from keys.models import AuditEvent, Key, Organization, Scope, Secret
from tests import builders
from tests.builders import text
from tests.keys.admin_forms import act_on, key_form, listed, page, plain

pytestmark = pytest.mark.django_db

MODELS = ["organization", "membership", "scope", "policy", "key", "auditevent"]


# --- what cannot be done --------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_nothing_can_be_deleted(admin: Client, acme: Organization, model: str) -> None:
    builders.key(acme)
    objects: dict[str, Any] = {
        "organization": acme,
        "membership": acme.memberships.first(),
        "scope": Scope.objects.first(),
        "policy": acme.policy,
        "key": Key.objects.first(),
        "auditevent": AuditEvent.objects.first(),
    }
    pk = objects[model].pk
    assert admin.post(page(model, "delete", pk), {"post": "yes"}).status_code == 403
    assert "Delete" not in text(admin.get(page(model, "change", pk)))
    admin.post(page(model), {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
    assert type(objects[model])._default_manager.filter(pk=pk).exists()


def test_history_is_only_to_be_read(admin: Client, acme: Organization) -> None:
    event = AuditEvent.objects.first()
    assert event is not None
    assert admin.get(page("auditevent", "add")).status_code == 403
    assert admin.get(page("auditevent", "change", event.pk)).status_code == 200
    assert admin.post(page("auditevent", "change", event.pk), {"act": "x"}).status_code == 403


def test_staff_without_the_permission_are_refused(client: Client, acme: Organization) -> None:
    builders.signed_in(client, builders.user("mia", is_staff=True))
    key = builders.key(acme).key
    for url in (
        page("key"),
        page("key", "add"),
        page("key", "rotate", key.pk),
        page("key", "change", key.pk),
    ):
        assert client.get(url).status_code == 403
    assert client.post(page("key"), {"q": "acme"}).status_code == 403
    assert act_on(client, "key", "revoke", key, confirmed="yes", reason="x").status_code == 403


# --- search, filters, queries ---------------------------------------------------------------------


def test_keys_are_found_by_name_id_last_four_and_organization(admin: Client, acme: Organization) -> None:
    issued = builders.key(acme, name="Wanted")
    builders.key(builders.organization("other"), name="Another")
    for q in ("want", issued.key.public_id, issued.secret.hint, f"lk_live_…{issued.secret.hint}", "acme"):
        response = admin.post(page("key"), {"q": q}, follow=True)
        assert listed(response) == ["Wanted"], q


def test_a_pasted_key_is_found_and_stands_in_no_address_or_log(
    admin: Client, acme: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    issued = builders.key(acme)
    for response in (
        admin.post(page("key"), {"q": f" {issued.plaintext}\n"}),
        admin.get(page("key"), {"q": issued.plaintext}),
    ):
        assert response.status_code == 302
        assert response["Location"] == page("key", "change", issued.key.pk)
    mistyped = issued.plaintext[:-1] + ("0" if issued.plaintext[-1] != "0" else "1")
    for response in (admin.post(page("key"), {"q": mistyped}), admin.get(page("key"), {"q": mistyped})):
        assert response.status_code == 302
        assert mistyped not in response["Location"]
    assert "No key here has that secret" in text(admin.get(page("key")))
    assert issued.plaintext[8:] not in caplog.text
    assert mistyped[8:] not in caplog.text


def test_an_imported_key_is_found_too(admin: Client, acme: Organization) -> None:
    foreign = "sk-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
    key = lifecycle.import_key(
        lifecycle.command_actor(),
        acme,
        name="Old",
        sha256=sha256(foreign.encode()).hexdigest(),
        now=timezone.now(),
    )
    response = admin.post(page("key"), {"q": foreign})
    assert response["Location"] == page("key", "change", key.pk)


def test_keys_are_filtered_by_state_and_organization(admin: Client, acme: Organization) -> None:
    builders.key(acme, name="Live")
    gone = builders.key(acme, name="Gone").key
    builders.key(builders.organization("other"), name="Another")
    lifecycle.revoke_key(lifecycle.command_actor(), gone, now=timezone.now())
    assert listed(admin.get(page("key"), {"state": "revoked"})) == ["Gone"]
    found = listed(admin.get(page("key"), {"organization": "acme", "state": "active"}))
    assert found == ["Live"]
    assert listed(admin.get(page("key"), {"organization": "nobody"})) == []


def test_the_audit_is_filtered(admin: Client, acme: Organization) -> None:
    key = builders.key(acme).key

    def numbers(**query: Any) -> set[str]:
        response = admin.get(page("auditevent"), query)
        assert response.status_code == 200
        return {event.act for event in response.context["cl"].result_list}

    assert numbers(act="key.created") == {"key.created"}
    assert numbers(organization="acme") == {"organization.created", "key.created"}
    assert numbers(actor="staff") == set()
    assert numbers(key__id__exact=key.pk) == {"key.created"}
    assert numbers(at__year=timezone.now().year) >= {"key.created"}


def test_every_act_is_among_the_audits_filters() -> None:
    subjects = (
        "billing_account|billing_alert|finding|key|member|meter|organization|period|plan|policy|scope|spool"
        "|subscription"
    )
    written = set()
    for folder in (settings.BASE_DIR / "keys" / "lifecycle", settings.BASE_DIR / "usage"):
        for path in folder.rglob("*.py"):
            written |= set(re.findall(rf'"((?:{subjects})\.[a-z_]+)"', path.read_text()))
    assert written
    assert written <= set(ACTS)


def populate(start: int, count: int) -> None:
    now = timezone.now()
    for number in range(start, start + count):
        organization = builders.organization(f"org-{number}", builders.user(f"user{number}"))
        builders.key(organization, scopes=(f"s{number}:read",))
        lifecycle.create_policy(lifecycle.command_actor(), slug=f"p{number}", name=f"P{number}", now=now)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_takes_the_same_queries_however_long(admin: Client, model: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert admin.get(page(model), {"q": "e"} if model == "membership" else {}).status_code == 200
        return len(captured)

    populate(0, 2)
    queries()  # what is cached once: content types, permissions
    few = queries()
    populate(2, 9)
    assert queries() == few
    assert few <= 12


@pytest.mark.parametrize("model", ["organization", "key"])
def test_a_page_takes_the_same_queries_however_many_rows_it_lists(
    admin: Client, acme: Organization, model: str
) -> None:
    issued = builders.key(acme)
    url = page(model, "change", acme.pk if model == "organization" else issued.key.pk)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(url).status_code == 200
        return len(captured)

    queries()
    few = queries()
    for number in range(5):
        builders.member(builders.user(f"bob{number}"), acme)
        lifecycle.rotate_key(
            lifecycle.command_actor(),
            issued.key,
            overlap=dt.timedelta(0),
            current=issued.key.secrets.get(stops_at=None),
            now=timezone.now(),
        )
    assert queries() == few


@pytest.mark.parametrize("junk", ["\x00", "abc", "9" * 40, "-1", "\ud83d", "' OR 1=1"])
@pytest.mark.parametrize(
    "name",
    ["q", "p", "o", "state", "organization", "act", "actor", "at__year", "organization__id__exact", "e"],
)
@pytest.mark.parametrize("model", ["key", "auditevent", "membership", "organization"])
def test_no_junk_in_an_address_is_an_error_of_the_server(
    admin: Client, model: str, name: str, junk: str
) -> None:
    raw = junk.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert admin.get(page(model), {name: raw}).status_code in (200, 302, 400)


@pytest.mark.parametrize("model", MODELS)
def test_a_page_of_nothing_is_no_error_of_the_server(admin: Client, model: str) -> None:
    for pk in ("999999", "abc", "%00", "9" * 40):
        url = page(model).rstrip("/") + f"/{pk}/change/"
        assert admin.get(url).status_code in (302, 400)
    junk = {"organization": "abc", "user": "x", "scopes": "y,z", "expires_at": "soon", "policy": "9" * 40}
    assert admin.get(page(model, "add"), junk).status_code in (200, 403)
    assert admin.get(page("key", "rotate", 999999)).status_code == 302


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("", {"q": "\x00"}),
        ("", {"organization__id__exact": "9" * 40}),
        ("", {"organization__policy__slug__regex": "x"}),
        ("1\x00/change/", {}),
        ("9" * 40 + "/change/", {}),
    ],
)
def test_a_scanners_junk_leaves_no_traceback_in_the_log(
    admin: Client, caplog: pytest.LogCaptureFixture, path: str, query: dict[str, str]
) -> None:
    assert admin.get(page("key") + path, query).status_code in (200, 302, 400)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


def test_a_junk_selection_leaves_no_traceback_in_the_log(
    admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    form = {"action": "revoke", "_selected_action": ["\x00"], "index": "0"}
    assert admin.post(page("key"), form).status_code == 400
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


def test_those_who_are_not_staff_are_told_so(client: Client) -> None:
    builders.signed_in(client, builders.user("bob"))
    response = client.get("/admin/", follow=True)
    assert response.status_code == 403
    assert "for the provider’s staff" in response.text
    assert "owner or admin" not in response.text


def test_times_name_their_zone(admin: Client, acme: Organization) -> None:
    at = dt.datetime(2026, 6, 15, 14, 5, tzinfo=dt.UTC)
    Organization.objects.filter(pk=acme.pk).update(created_at=at)
    assert "15 Jun 2026, 14:05 UTC" in text(admin.get(page("organization")))


# --- no secret anywhere ---------------------------------------------------------------------------


def test_neither_digest_nor_secret_is_on_any_page(admin: Client, acme: Organization) -> None:
    issued = builders.key(acme, scopes=("orders:read",))
    second = lifecycle.rotate_key(
        lifecycle.command_actor(), issued.key, overlap=dt.timedelta(hours=1), now=timezone.now()
    )
    digests = [bytes(secret.digest) for secret in Secret.objects.all()]
    hidden = [issued.plaintext, second.plaintext]
    for digest in digests:
        hidden += [digest.hex(), base64.b64encode(digest).decode(), repr(digest)[2:-1], str(list(digest))]
    pages = [reverse("admin:index"), reverse("staff"), reverse("staff_usage"), reverse("staff_find_key")]
    pages += [reverse("admin:portal_user_changelist"), reverse("admin:app_list", args=["keys"])]
    pages += [page(model) for model in MODELS] + [page(m, "add") for m in MODELS if m != "auditevent"]
    pages += [page("auditevent", "change", event.pk) for event in AuditEvent.objects.all()]
    pages += [page("key", name, issued.key.pk) for name in ("change", "rotate")]
    pages += [page("organization", "change", acme.pk)]
    responses = [admin.get(url) for url in pages]
    responses += [act_on(admin, "key", "revoke", issued.key)]
    for response in responses:
        assert response.status_code == 200
        assert not [each for each in hidden if each in text(response)]


def test_a_new_secret_is_in_no_log(
    admin: Client, acme: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = plain(admin.post(page("key", "add"), key_form(admin, acme)))
    assert secret[8:] not in caplog.text
