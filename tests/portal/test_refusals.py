"""The pages about refused calls: what they explain, to whom, and that no key is left in an address."""

import csv
import datetime as dt
import io
import re
import time
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from keys import lifecycle, tokens
from keys.directory import Directory
from keys.models import Key, Organization, Secret
from keys.permissions import Role
from keys.verdicts import Code
from portal import mends
from portal import refusals as pages
from tests import builders
from tests.portal.test_pages import calls
from usage import metering
from usage.drain import Drain
from usage.models import Refusal, Spool

pytestmark = pytest.mark.django_db

SPOOL = "a" * 11
DAY = dt.timedelta(days=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


@pytest.fixture
def sam() -> Client:
    return builders.signed_in(Client(), builders.staff("sam"))


def refused(
    key: Key | None, code: Code = Code.REVOKED, *, ago: dt.timedelta = dt.timedelta(0), **fields: object
) -> Refusal:
    secret = Secret.objects.filter(key=key).first() if key else None
    return Refusal.objects.create(
        spool=SPOOL,
        sequence=Refusal.objects.count() + 2,
        at=timezone.now() - ago,
        organization=key.organization if key else None,
        key=key,
        secret=secret,
        outcome=code.name,
        **{"resource": "orders", "address": "192.0.2.7", "user_agent": "curl/8"} | fields,
    )


def page(client: Client, query: str = "", name: str = "refusals") -> str:
    args = ["acme"] if name == "refusals" else []
    response = client.get(reverse(name, args=args) + query)
    assert response.status_code == 200
    text: str = response.text
    return text


def search(client: Client, q: str, name: str = "refusals") -> str:
    """Where a search leads to; the page itself if nowhere."""
    response = client.post(reverse(name, args=["acme"] if name == "refusals" else []), {"q": q})
    if response.status_code == 302:
        return response["Location"]
    assert response.status_code == 400
    text: str = response.text
    return text


# --- the list ------------------------------------------------------------------------------------


def test_a_refusal_is_listed_with_its_reason_and_what_would_make_it_work(
    alice: Client, acme: Organization
) -> None:
    key = builders.key(acme, name="Shop").key
    refused(key, Code.EXPIRED, more=41)
    body = page(alice)
    for text in ("Shop", "Expired", Code.EXPIRED.advice, "192.0.2.7", "curl/8", "orders", "41 more"):
        assert escape(text) in body


MENDS = {
    Code.EXPIRED: "key_edit",
    Code.IP_NOT_ALLOWED: "key_edit",
    Code.INSUFFICIENT_SCOPE: "key_edit",
    Code.RATE_LIMITED: "key_edit",
    Code.QUOTA_EXCEEDED: "key",
    Code.DISABLED: "key",
    Code.REVOKED: "key",
}


@pytest.mark.parametrize("code", MENDS)
def test_a_refusal_leads_to_the_page_that_would_make_it_work(
    alice: Client, acme: Organization, code: Code
) -> None:
    key = builders.key(acme).key
    refusal = refused(key, code)
    mend = mends.of(code, key, acme)
    assert mend is not None
    assert mend.url == reverse(MENDS[code], args=["acme", key.public_id])
    link = f'href="{mend.url}">{mend.label}'
    assert link in page(alice)
    assert mend.label in page(alice, f"?request={refusal.request_id}")


def test_a_call_with_a_revoked_key_leads_to_a_new_one(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    lifecycle.revoke_key(lifecycle.command_actor(), key, now=timezone.now())
    refused(key)
    assert f'href="{reverse("key_new", args=["acme"])}">Create another key' in page(alice)


def test_who_may_not_mend_it_is_not_led_there(client: Client, acme: Organization) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.VIEWER)
    refused(builders.key(acme).key, Code.EXPIRED)
    assert "Give it a new expiry" not in page(builders.signed_in(client, bob))


def test_staff_who_are_no_members_are_not_led_to_customers_pages(sam: Client, acme: Organization) -> None:
    refused(builders.key(acme).key, Code.EXPIRED)
    assert "Give it a new expiry" not in page(sam, name="staff_refusals")


def test_the_refusals_of_one_key_are_a_timeline_with_their_reasons(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    calls(key, 4, Code.RATE_LIMITED, ago=3 * DAY)
    calls(key, 2, Code.EXPIRED)
    calls(key, 9)
    calls(builders.key(acme).key, 50, Code.EXPIRED)
    found = alice.get(reverse("refusals", args=["acme"]), {"key": key.public_id}).context["page"].timeline
    assert sum(bar.refused for bar in found.chart.bars) == 6
    assert sum(bar.accepted for bar in found.chart.bars) == 0
    assert [(reason.code, reason.calls) for reason in found.reasons] == [("RATE_LIMITED", 4), ("EXPIRED", 2)]
    assert "Refused calls of <bdi>Backend</bdi>" in page(alice, f"?key={key.public_id}")
    assert "Refused calls of" not in page(alice)


def test_without_refusals_the_page_says_so(alice: Client) -> None:
    assert "No call was refused" in page(alice)


def test_an_ended_secret_is_not_said_to_be_unknown() -> None:
    assert "new secret" in Code.REVOKED.advice  # which is what the gateway says of one
    assert "rotat" not in Code.UNKNOWN.advice


def test_every_code_has_its_own_advice() -> None:
    assert len({code.advice for code in Code}) == len(Code)


def test_a_customer_sees_neither_anothers_refusals_nor_nobodys(alice: Client) -> None:
    refused(builders.key(builders.organization("globex"), name="Theirs").key)
    refused(None, Code.UNKNOWN)
    body = page(alice)
    assert "Theirs" not in body
    assert "192.0.2.7" not in body


def test_the_list_is_filtered_by_reason_day_and_key(alice: Client, acme: Organization) -> None:
    one, two = builders.key(acme, name="First").key, builders.key(acme, name="Second").key
    refused(one, Code.EXPIRED, resource="r-one")
    refused(two, Code.REVOKED, resource="r-two", ago=3 * DAY)
    day = (timezone.now() - 3 * DAY).astimezone(dt.UTC).date()
    for query, seen, unseen in [
        ("?code=EXPIRED", "r-one", "r-two"),
        (f"?day={day}", "r-two", "r-one"),
        (f"?key={two.public_id}", "r-two", "r-one"),
    ]:
        body = page(alice, query)
        assert seen in body
        assert unseen not in body


@pytest.mark.parametrize(
    "query",
    [
        "?code=NOPE&day=yesterday&page=x&key=%00&request=%00",
        "?day=0001-01-01",
        "?day=9999-12-31",
        "?key=" + "k" * 5000,
        "?request=aaaaaaaaaaa-" + "9" * 40,
        "?request=aaaaaaaaaaa-999999999999999999.999999999999999999",
        "?page=99999999999999999999",
        "?key=%F0%9F%94%91&code=<script>",
    ],
)
def test_junk_in_the_address_is_no_error(alice: Client, sam: Client, query: str) -> None:
    assert "<script>" not in page(alice, query)
    page(sam, query, "staff_refusals")


@pytest.mark.parametrize(
    "q", ["", " ", "\0", "\ud800", "x" * 600, "key_short", "a-1", "<script>alert(1)</script>"]
)
def test_junk_in_the_search_is_a_sentence(alice: Client, q: str) -> None:
    body = search(alice, q.encode("utf-8", "replace").decode())
    assert 'class="field-error' in body
    assert "<script>alert" not in body


def test_the_list_costs_the_same_for_one_refusal_and_for_many(
    alice: Client, acme: Organization, sam: Client
) -> None:
    def queries(client: Client, name: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            page(client, name=name)
        return len(captured)

    for client, name in ((alice, "refusals"), (sam, "staff_refusals")):
        refused(builders.key(acme).key)
        queries(client, name)
        few = queries(client, name)
        for _ in range(12):
            refused(builders.key(acme).key)
        assert queries(client, name) == few <= 9


def test_many_refusals_come_in_pages_and_no_more_are_counted_than_are_shown(
    alice: Client, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "NEWEST", 60)
    key = builders.key(acme).key
    now = timezone.now()
    Refusal.objects.bulk_create(
        Refusal(spool=SPOOL, sequence=n, at=now, organization=acme, key=key, outcome="EXPIRED")
        for n in range(100)
    )
    first, second = page(alice), page(alice, "?page=2")
    assert f"{SPOOL}-99" in first
    assert f"{SPOOL}-45" in second
    assert f"{SPOOL}-39" not in second
    assert "Choose a day" in first


def test_a_code_of_a_later_version_is_listed_by_its_name(alice: Client, acme: Organization) -> None:
    row = refused(builders.key(acme).key)
    Refusal.objects.filter(pk=row.pk).update(outcome="CODE_99")
    assert "CODE_99" in page(alice)
    assert "CODE_99" in page(alice, f"?request={row.request_id}")


def test_a_row_whose_key_is_gone_is_still_a_row(alice: Client, acme: Organization) -> None:
    """A journal that outlived a restored database."""
    row = refused(builders.key(acme).key)
    Refusal.objects.filter(pk=row.pk).update(key=987654, secret=987654)
    assert "192.0.2.7" in page(alice)


def test_the_csv_is_the_list_and_no_cell_is_a_formula(alice: Client, acme: Organization) -> None:
    key = builders.key(acme, name="=HYPERLINK(1)").key
    row = refused(key, Code.EXPIRED, user_agent="@evil", more=7)
    refused(key, Code.REVOKED)
    response = alice.get(reverse("refusals_csv", args=["acme"]) + "?code=EXPIRED")
    header, *lines = list(csv.reader(io.StringIO(response.text)))
    assert len(lines) == 1
    line = dict(zip(header, lines[0], strict=True))
    assert line["request"] == row.request_id
    assert (line["code"], line["key"], line["more"]) == ("EXPIRED", key.public_id, "7")
    assert (line["key_name"], line["user_agent"]) == ("'=HYPERLINK(1)", "'@evil")


# --- one request ---------------------------------------------------------------------------------


def test_a_request_id_is_explained(alice: Client, acme: Organization) -> None:
    row = refused(builders.key(acme, name="Shop").key, Code.IP_NOT_ALLOWED, more=3)
    where = search(alice, f" {row.request_id} ")
    assert where.endswith(f"?request={row.request_id}")
    body = page(alice, f"?request={row.request_id}")
    assert escape(Code.IP_NOT_ALLOWED.advice) in body
    assert "What would make it work" in body
    assert "3 more like it" in body


def test_the_id_of_a_summed_refusal_leads_to_the_last_that_was_noted(
    alice: Client, acme: Organization
) -> None:
    row = refused(builders.key(acme).key, Code.RATE_LIMITED, more=900)
    body = page(alice, f"?request={row.request_id}.17")
    assert "One of a flood" in body
    assert "900 more like it" in body


def test_anothers_request_id_is_as_one_that_never_was(alice: Client) -> None:
    theirs = refused(builders.key(builders.organization("globex")).key)
    Spool.objects.create(id=SPOOL, host="h", pid=1, started_at=timezone.now(), sequence=100)

    def answer(request: str) -> str:
        body = page(alice, f"?request={request}").replace(request, "ID")
        return re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", body)

    assert "Not found here" in answer(theirs.request_id)
    assert answer(theirs.request_id) == answer(f"{SPOOL}-77") == answer("b" * 11 + "-77")


def test_a_request_that_is_not_drained_yet_is_said_to_be_too_recent(alice: Client) -> None:
    spool = Spool.objects.create(id=SPOOL, host="h", pid=1, started_at=timezone.now(), sequence=100)
    assert "Not counted yet" in page(alice, f"?request={SPOOL}-101")
    assert "Not found here" in page(alice, f"?request={SPOOL}-100")
    spool.finished_at = timezone.now()
    spool.save()
    assert "Not found here" in page(alice, f"?request={SPOOL}-101")


def test_what_the_gateway_answered_is_what_the_page_explains(
    alice: Client, acme: Organization, journal_dir: Path
) -> None:
    issued = builders.key(acme, name="Shop")
    directory = Directory(process_id="test", lock_dir=journal_dir)
    directory.refresh()
    metering.start(directory)
    allowed = metering.authorize(issued.plaintext, now=time.time())
    ids = [
        metering.authorize(issued.plaintext, scopes=("orders:read",), now=time.time()).request
        for _ in range(25)
    ]
    metering.stop()
    Drain().once(timezone.now())
    for request in (ids[0], ids[-1]):
        assert escape(Code.INSUFFICIENT_SCOPE.advice) in page(alice, f"?request={request}")
    assert "5 more like it" in page(alice, f"?request={ids[-1]}")
    assert "Not found here" in page(alice, f"?request={allowed.request}")


# --- one key -------------------------------------------------------------------------------------


def test_a_key_is_found_by_its_id_its_last_four_and_whole_and_never_stands_in_an_address(
    alice: Client, acme: Organization, sam: Client
) -> None:
    issued = builders.key(acme, name="Shop")
    secret = issued.key.secrets.get()
    for client, name in ((alice, "refusals"), (sam, "staff_refusals")):
        for q in (issued.key.public_id, issued.plaintext, f"  {issued.plaintext}\n"):
            assert search(client, q, name).endswith(f"?key={issued.key.public_id}")
        for q in (secret.hint, f"lk_live_…{secret.hint}"):
            assert search(client, q, name).endswith(f"?key={secret.hint}")
            assert "Shop" in page(client, f"?key={secret.hint}", name)


def test_an_imported_key_is_found_whole(alice: Client, acme: Organization) -> None:
    old = "my old key, 2019"
    key = lifecycle.import_key(
        lifecycle.command_actor(), acme, name="Old", sha256=tokens.digest(old).hex(), now=timezone.now()
    )
    assert search(alice, old).endswith(f"?key={key.public_id}")


def test_revoked_expired_and_replaced_keys_are_explained(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    actor = lifecycle.command_actor()
    revoked = builders.key(acme, name="Gone").key
    lifecycle.revoke_key(actor, revoked, reason="leaked", now=now)
    assert escape(Code.REVOKED.advice) in page(alice, f"?key={revoked.public_id}")
    expired = builders.key(acme, name="Old", expires_at=now + dt.timedelta(days=1)).key
    Key.objects.filter(pk=expired.pk).update(expires_at=now - DAY)
    assert escape(Code.EXPIRED.advice) in page(alice, f"?key={expired.public_id}")
    rotated = builders.key(acme, name="Turned")
    lifecycle.rotate_key(actor, rotated.key, overlap=dt.timedelta(0), now=now)
    assert search(alice, rotated.plaintext).endswith(f"?key={rotated.key.public_id}")
    assert "a rotation replaced it" in page(alice, f"?key={rotated.key.public_id}")


def test_anothers_key_is_as_one_that_never_was(alice: Client) -> None:
    theirs = builders.key(builders.organization("globex"), name="Theirs")
    never = tokens.mint("lk", "live").plaintext
    for q in (theirs.plaintext, never):
        assert escape(Code.UNKNOWN.advice) in search(alice, q)
    for query in (f"?key={theirs.key.public_id}", f"?key={theirs.key.secrets.get().hint}"):
        body = page(alice, query)
        assert "No such key" in body
        assert "Theirs" not in body


def test_a_mistyped_key_is_told_and_not_given_back(alice: Client, acme: Organization) -> None:
    typed = builders.key(acme).plaintext[:-1] + "!"
    body = search(alice, typed)
    assert escape(Code.MALFORMED.advice) in body
    assert typed not in body
    assert typed[:30] not in body


@pytest.mark.parametrize("name", ["key", "request", "code", "anything"])
def test_a_key_in_the_address_is_taken_out_of_it(
    alice: Client, sam: Client, acme: Organization, name: str
) -> None:
    plaintext = builders.key(acme).plaintext
    for client, url in ((alice, reverse("refusals", args=["acme"])), (sam, reverse("staff_refusals"))):
        response = client.get(url, {name: plaintext})
        assert response.status_code == 302
        assert response["Location"] == url


def test_the_reasons_on_other_pages_lead_to_the_calls(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    calls(key, 3, Code.EXPIRED)
    here = reverse("refusals", args=["acme"])
    assert f'"{here}?key={key.public_id}"' in alice.get(reverse("key", args=["acme", key.public_id])).text
    assert f'"{here}">See each call' in alice.get(reverse("usage", args=["acme"])).text


def test_any_member_may_look(client: Client, acme: Organization) -> None:
    builders.member(builders.user("victor"), acme, Role.VIEWER)
    builders.signed_in(client, acme.memberships.get(role=Role.VIEWER).user)
    refused(builders.key(acme, name="Shop").key)
    assert "Shop" in page(client)


# --- staff ---------------------------------------------------------------------------------------


def test_staff_see_everybodys_and_nobodys(sam: Client) -> None:
    refused(builders.key(builders.organization("acme"), name="Ours").key)
    refused(builders.key(builders.organization("globex"), name="Theirs").key)
    nobodys = refused(None, Code.UNKNOWN, resource="nobodys")
    body = page(sam, name="staff_refusals")
    for text in ("Ours", "Theirs", "nobodys", "none of ours"):
        assert text in body
    assert escape(Code.UNKNOWN.advice) in page(sam, f"?request={nobodys.request_id}", "staff_refusals")


def test_staff_see_those_of_one_organization(sam: Client) -> None:
    for slug, name in (("acme", "Ours"), ("globex", "Theirs")):
        refused(builders.key(builders.organization(slug), name=name).key)
    builders.organization("initech")
    refused(None, Code.UNKNOWN, resource="nobodys")
    body = page(sam, "?organization=acme", "staff_refusals")
    assert "Ours" in body
    assert "Theirs" not in body
    assert "nobodys" not in body
    assert 'value="acme"' in body
    assert "Nothing matches" in page(sam, "?organization=acme&code=EXPIRED", "staff_refusals")
    assert "Nothing matches" in page(sam, "?organization=initech", "staff_refusals")


@pytest.mark.parametrize("slug", ["acmee", "%00", "%ED%A0%80", "a" * 51, "a" * 100_000], ids=len)
def test_a_slug_that_no_organization_has_is_told_and_shows_no_less(sam: Client, slug: str) -> None:
    refused(builders.key(builders.organization("acme"), name="Ours").key)
    answer = sam.get(f"{reverse('staff_refusals')}?organization={slug}")
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert "Ours" in answer.text


def test_a_customer_chooses_no_organization(alice: Client, acme: Organization) -> None:
    refused(builders.key(acme, name="Ours").key)
    builders.organization("globex")
    body = page(alice, "?organization=globex")
    assert "Ours" in body
    assert 'name="organization"' not in body


def test_find_a_key_leads_staff_to_the_refusals(sam: Client) -> None:
    assert reverse("staff_refusals") in page(sam, name="staff_find_key").partition("<main")[2]
