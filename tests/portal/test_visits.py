"""Staff who look at a customer's pages: what they see, that they change nothing, and that it ends."""

import datetime as dt
import re
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from keys import lifecycle
from keys.access import VISIT
from keys.lifecycle import Conflict, Forbidden
from keys.models import AuditEvent, Organization, Visit
from keys.permissions import Role
from portal.models import User
from tests import builders
from tests.portal.test_routes import TABLE, own_routes
from tests.threads import at_once

pytestmark = pytest.mark.django_db

BANNER = "You see <bdi>Acme</bdi> as its members do"


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def visiting(client: Client, sam: User, acme: Organization) -> Client:
    """Sam's browser, in which a visit to Acme has begun."""
    begin(builders.signed_in(client, sam))
    return client


def begin(client: Client, reason: str = "Ticket 7") -> Any:
    return client.post(reverse("staff_visit", args=["acme"]), {"reason": reason})


def page(client: Client, name: str = "overview", **kwargs: object) -> Any:
    return client.get(reverse(name, kwargs={"organization": "acme", **kwargs}))


def acts() -> list[str]:
    return list(AuditEvent.objects.order_by("number").values_list("act", flat=True))


def test_a_visit_begins_with_a_reason_that_the_customer_reads(
    client: Client, sam: User, acme: Organization
) -> None:
    builders.signed_in(client, sam)
    assert page(client).status_code == 404
    response = begin(client, "Ticket 7: charts are empty")
    assert response.headers["Location"] == reverse("overview", args=["acme"])
    visit = Visit.objects.get()
    assert (visit.user, visit.organization, visit.reason) == (sam, acme, "Ticket 7: charts are empty")
    assert visit.ends_at - visit.began_at == dt.timedelta(minutes=30)
    event = acme.events.first()
    assert event is not None
    assert (event.act, event.actor_kind, event.actor_label) == (
        "organization.visit_began",
        "staff",
        sam.email,
    )
    assert event.data["reason"] == "Ticket 7: charts are empty"
    alice = builders.signed_in(Client(), User.objects.get(email="alice@example.com"))
    shown = page(alice, "activity").content.decode()
    assert "Ticket 7: charts are empty" in shown
    assert BANNER not in shown


def test_a_visitor_sees_what_members_see_with_a_banner_on_every_page(
    visiting: Client, acme: Organization
) -> None:
    key = builders.key(acme).key
    for name in ("overview", "keys", "attention", "usage", "refusals", "billing", "team", "activity"):
        response = page(visiting, name)
        assert response.status_code == 200, name
        assert BANNER in response.content.decode(), name
        assert reverse("staff_leave") in response.content.decode(), name
    assert BANNER in page(visiting, "key", key_id=key.public_id).content.decode()
    assert page(visiting, "usage_csv").status_code == 200


def test_a_form_is_refused_to_a_visitor_in_the_pages_own_frame_with_a_way_back(
    visiting: Client, acme: Organization
) -> None:
    key_id = builders.key(acme).key.public_id
    for name in ("key_rotate", "key_edit", "key_revoke"):  # forms are of no use to who can send none
        url = reverse(name, kwargs={"organization": "acme", "key_id": key_id})
        for response in (visiting.get(url), visiting.post(url)):
            assert response.status_code == 403, name
            assert BANNER in response.content.decode(), name
            assert f'href="{reverse("key", args=["acme", key_id])}"' in response.content.decode(), name
            assert "no-store" in response.headers["Cache-Control"], name
    shown = page(visiting, "key_new")
    assert shown.status_code == 403
    assert "change nothing" in shown.content.decode()
    assert ">Back to the overview</a>" in shown.content.decode()


def test_every_write_is_refused_during_a_visit(visiting: Client, acme: Organization) -> None:
    issued, alert, month = builders.key(acme), builders.alert(acme), builders.closed_month(acme)
    refused = set()
    value_of = {"key_id": issued.key.public_id, "period": month, "row": alert.pk, "slug": "no_expiry"}
    value_of["invitation_id"] = builders.invitation(acme, "new@example.com").public_id
    before = acts()
    for route, name in own_routes():
        if route.startswith("o/"):
            found = re.findall(r"<([a-z_]+):([a-z_]+)>", route)
            kwargs = {parameter: value_of[converter] for converter, parameter in found}
            url = reverse(name, kwargs=kwargs | {"organization": "acme"})
            status = visiting.post(url, {"name": "x", "reason": "x", "once": "x"}).status_code
            assert status in (403, 405), name
            if status == 403:
                refused.add(name)
    taking = {name for name, each in TABLE.items() if any(e.method == "POST" for e in each)}
    assert {name for route, name in own_routes() if route.startswith("o/") and name in taking} <= refused
    overview = reverse("overview", args=["acme"])
    assert {visiting.generic(method, overview).status_code for method in ("PUT", "PATCH", "DELETE", "X")} <= {
        403,
        405,
    }
    assert acts() == before
    assert builders.reloaded(issued.key).state_at(timezone.now()) == "active"


def test_a_visitor_is_no_actor_for_any_act(acme: Organization, sam: User) -> None:
    key, who, now = builders.key(acme).key, lifecycle.visitor_actor(sam), timezone.now()
    with pytest.raises(Forbidden):
        lifecycle.revoke_key(who, key, reason="x", now=now)
    with pytest.raises(Forbidden):
        lifecycle.create_key(who, acme, name="Mine", now=now)
    with pytest.raises(Forbidden):
        lifecycle.suspend_organization(who, acme, reason="x", now=now)


def test_who_is_a_member_too_can_only_look_during_a_visit(
    visiting: Client, sam: User, acme: Organization
) -> None:
    builders.member(sam, acme, Role.OWNER)
    key = builders.key(acme).key
    url = reverse("key_revoke", kwargs={"organization": "acme", "key_id": key.public_id})
    assert visiting.post(url, {"reason": "x"}).status_code == 403
    visiting.post(reverse("staff_leave"))
    assert visiting.post(url, {"reason": "x"}).status_code == 302
    assert builders.reloaded(key).revoked_at is not None


def test_leaving_ends_the_visit_and_is_audited_once(visiting: Client, sam: User, acme: Organization) -> None:
    assert visiting.post(reverse("staff_leave")).status_code == 302
    assert page(visiting).status_code == 404
    visiting.post(reverse("staff_leave"))
    assert acts()[-2:] == ["organization.visit_began", "organization.visit_ended"]
    with pytest.raises(Conflict):
        lifecycle.end_visit(lifecycle.staff_actor(sam), Visit.objects.get(), now=timezone.now())


def test_a_visit_ends_by_itself(visiting: Client) -> None:
    Visit.objects.update(ends_at=timezone.now())
    response = page(visiting)
    assert response.status_code == 302
    assert response.headers["Location"] == reverse("staff_visit", args=["acme"])
    key_new = reverse("key_new", args=["acme"])
    assert visiting.post(key_new).headers["Location"] == reverse("staff_visit", args=["acme"])
    assert lifecycle.end_visits(now=timezone.now()) == 1
    assert lifecycle.end_visits(now=timezone.now()) == 0
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.act, event.data["ended"]) == ("organization.visit_ended", "by itself")


def test_a_visit_is_of_one_organization_and_one_person(visiting: Client, acme: Organization) -> None:
    builders.organization("other")
    assert visiting.get(reverse("overview", args=["other"])).status_code == 404
    mia = builders.signed_in(Client(), builders.staff("mia"))
    session = mia.session
    session[VISIT] = Visit.objects.get().pk
    session.save()
    assert page(mia).status_code == 404


def test_another_visit_ends_the_first(visiting: Client, sam: User) -> None:
    other = builders.organization("other")
    visiting.post(reverse("staff_visit", args=["other"]), {"reason": "Ticket 8"})
    assert page(visiting).status_code == 404
    assert visiting.get(reverse("overview", args=["other"])).status_code == 200
    assert [visit.organization for visit in Visit.objects.filter(ended_at=None)] == [other]
    assert acts().count("organization.visit_ended") == 1


@pytest.mark.parametrize("lost", ["permission", "is_staff", "is_active"])
def test_who_may_no_longer_visit_sees_nothing(client: Client, acme: Organization, lost: str) -> None:
    mia = builders.user("mia", is_staff=True)
    mia.user_permissions.add(Permission.objects.get(codename="visit_organization"))
    builders.signed_in(client, mia)
    begin(client)
    assert page(client).status_code == 200
    if lost == "permission":
        mia.user_permissions.clear()
    else:
        User.objects.filter(pk=mia.pk).update(**{lost: False})
    assert page(client).status_code in (302, 404)
    assert "Acme" not in page(client).content.decode()


def test_staff_without_the_permission_cannot_begin(client: Client, acme: Organization) -> None:
    builders.signed_in(client, builders.user("mia", is_staff=True))
    assert client.get(reverse("staff_visit", args=["acme"])).status_code == 403
    assert begin(client).status_code == 403
    assert not Visit.objects.exists()


def test_a_customer_that_is_not_there_cannot_be_visited(client: Client, sam: User) -> None:
    assert begin(builders.signed_in(client, sam)).status_code == 404


@pytest.mark.parametrize("junk", ["", "\x00", "a\x00b", "x" * 201, "x" * 2**20, "\ud800", "\u202e"])
def test_no_junk_as_a_reason_is_an_error_of_the_server(
    client: Client, sam: User, acme: Organization, junk: str
) -> None:
    builders.signed_in(client, sam)
    body = b"reason=" + junk.encode(errors="surrogatepass")
    url = reverse("staff_visit", args=["acme"])
    response = client.post(url, body, content_type="application/x-www-form-urlencoded")
    assert response.status_code in (302, 400)


@pytest.mark.django_db(transaction=True)
def test_of_two_visits_begun_at_once_one_goes_on(sam: User, acme: Organization) -> None:
    who = lifecycle.staff_actor(sam)
    begin_one = partial(lifecycle.begin_visit, who, acme, reason="Ticket 7", now=timezone.now())
    assert [type(each) for each in at_once([begin_one, begin_one])] == [Visit, Visit]
    assert Visit.objects.count() == 2
    assert Visit.objects.filter(ended_at=None).count() == 1


def test_a_visitor_is_not_asked_for_the_customers_terms(visiting: Client, settings: Settings) -> None:
    settings.TERMS, settings.TERMS_VERSION = "https://example.com/terms", "2026-06"
    assert page(visiting).status_code == 200
    assert "Terms 2026-06: accepted by 0; 1 member in all" in visiting.get(reverse("admin:index")).text
    visiting.post(reverse("staff_leave"))
    assert "/terms/accept/" in page(visiting).headers["Location"]
