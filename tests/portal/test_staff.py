"""The staff's pages, and who may open them."""

import datetime as dt
import logging

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import AuditEvent, Key, Organization, Process
from portal.models import User
from tests import builders
from tests.builders import queries, text
from usage import resources
from usage.models import OrganizationRollup, Refusal, Rollup, Spool

pytestmark = pytest.mark.django_db

PAGES = ["staff", "staff_usage", "staff_refusals", "staff_find_key"]


def count(key: Key, at: dt.datetime, calls: int, outcome: str = "VALID", *, meter: str = "requests") -> None:
    hour = at.replace(minute=0, second=0, microsecond=0)
    builders.rollup(
        organization_id=key.organization_id,
        hour=hour,
        key=key,
        meter=meter,
        outcome=outcome,
        booked_period=hour.date().replace(day=1),
        calls=calls,
        quantity=calls,
    )


def spool(id: str, now: dt.datetime, watermark: dt.datetime | None) -> Spool:
    return Spool.objects.create(id=id, host=f"host-{id}", pid=7, started_at=now, watermark=watermark)


# --- who may -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_is_sent_to_sign_in_and_a_customer_finds_nothing(client: Client, name: str) -> None:
    url = reverse(name)
    response = client.get(url)
    assert response.status_code == 302
    assert response["Location"] == f"{reverse('account_login')}?next={url}"
    builders.signed_in(client, builders.user("alice"))
    assert client.get(url).status_code == 404
    assert client.post(url).status_code in (404, 405)


@pytest.mark.parametrize("name", PAGES)
def test_staff_pages_are_for_staff_and_not_to_be_stored(admin: Client, name: str) -> None:
    response = admin.get(reverse(name))
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]


def test_a_former_member_of_staff_is_nobody(client: Client) -> None:
    person = builders.staff("mia")
    builders.signed_in(client, person)
    User.objects.filter(pk=person.pk).update(is_staff=False)
    assert client.get(reverse("staff")).status_code == 404


def test_the_admin_signs_in_through_the_portal(client: Client) -> None:
    response = client.get(reverse("admin:index"), follow=True)
    where, _ = response.redirect_chain[-1]
    assert where.startswith(reverse("account_login"))
    assert "next=" in where


def test_a_customer_in_the_admin_gets_a_clear_no_and_no_loop(client: Client) -> None:
    builders.signed_in(client, builders.user("alice"))
    response = client.get(reverse("admin:keys_key_changelist"), follow=True)
    assert response.status_code == 403
    assert len(response.redirect_chain) == 1


def test_nothing_of_the_admin_is_kept(admin: Client) -> None:
    for name in ("index", "jsi18n", "keys_key_changelist"):
        assert "no-store" in admin.get(reverse(f"admin:{name}"))["Cache-Control"], name


def test_the_admin_bears_the_portals_name(admin: Client) -> None:
    body = text(admin.get(reverse("admin:index")))
    assert f"{settings.PORTAL_NAME} staff" in body
    assert "Django" not in body


# --- overview ------------------------------------------------------------------------------------


def test_the_overview_sums_all_organizations_and_shows_what_needs_a_hand(admin: Client) -> None:
    now = timezone.now()
    acme, other = builders.organization("acme"), builders.organization("other")
    first = builders.key(acme, name="Soon", expires_at=now + dt.timedelta(days=3)).key
    second = builders.key(other).key
    count(first, now, 1200)
    count(first, now, 30, "REVOKED")
    count(second, now - dt.timedelta(days=29), 5000)
    count(second, now - dt.timedelta(days=31), 999_999)
    spool("aaaaaaaaaaa", now, now)
    spool("bbbbbbbbbbb", now - dt.timedelta(hours=2), None)
    Process.objects.create(
        id="ccccccccccc",
        host="web-1",
        pid=9,
        lock_path="/nowhere",
        started_at=now,
        feed_number=1,
        serves_until=now + dt.timedelta(seconds=60),
    )
    response = admin.get(reverse("staff"))
    context = response.context
    assert (context["today"].accepted, context["today"].refused) == (1200, 30)
    assert (context["accepted"], context["refused"]) == (6200, 30)
    assert [(t.organization, t.accepted, t.refused) for t in context["top"]] == [
        (other, 5000, 0),
        (acme, 1200, 30),
    ]
    assert list(context["expiring"]) == [first]
    assert [(s.spool.id, s.behind) for s in context["spools"]] == [
        ("bbbbbbbbbbb", True),
        ("aaaaaaaaaaa", False),
    ]
    process = context["processes"][0]
    assert (process.serving, process.behind) == (True, AuditEvent.objects.count() - 1)
    assert context["chain"].broken == []
    assert "host-aaaaaaaaaaa" in text(response)


def test_the_overview_takes_the_same_queries_however_much_there_is(admin: Client) -> None:
    now = timezone.now()

    def more(start: int, end: int) -> None:
        for n in range(start, end):
            soon = now + dt.timedelta(days=2)
            key = builders.key(builders.organization(f"org-{n}"), expires_at=soon).key
            count(key, now, 1)
            spool(f"{n:011}", now, now)

    more(0, 2)
    few = queries(admin, reverse("staff"))
    more(2, 9)
    assert queries(admin, reverse("staff")) == few
    assert few <= 19


@pytest.mark.parametrize("field", ["act", "hash", "previous_hash", "actor_label"])
def test_a_changed_audit_is_seen(admin: Client, field: str) -> None:
    builders.key(builders.organization("acme"))
    number = AuditEvent.objects.order_by("number").values_list("number", flat=True)[0]
    AuditEvent.objects.filter(number=number).update(**{field: "forged"})
    assert number in admin.get(reverse("staff")).context["chain"].broken


def test_a_missing_last_event_is_seen(admin: Client) -> None:
    builders.key(builders.organization("acme"))
    last = AuditEvent.objects.first()
    assert last is not None
    last.delete()
    assert admin.get(reverse("staff")).context["chain"].broken


# --- usage ---------------------------------------------------------------------------------------


@pytest.fixture
def used() -> tuple[Organization, Key, Key]:
    now = timezone.now()
    acme = builders.organization("acme")
    first, second = builders.key(acme).key, builders.key(builders.organization("other")).key
    count(first, now, 10)
    count(first, now, 3, "EXPIRED")
    count(first, now - dt.timedelta(days=2), 7)
    count(second, now, 100)
    count(second, now - dt.timedelta(days=40), 1000)
    return acme, first, second


@pytest.mark.parametrize(
    ("query", "sums"),
    [
        ({}, (117, 3, 117)),
        ({"organization": "acme"}, (17, 3, 17)),
        ({"organization": "acme", "outcome": "EXPIRED"}, (0, 3, 0)),
        ({"outcome": "refused"}, (0, 3, 0)),
        ({"outcome": "VALID"}, (117, 0, 117)),
    ],
)
def test_the_usage_table_adds_up_under_its_filters(
    admin: Client, used: tuple[Organization, Key, Key], query: dict[str, str], sums: tuple[int, ...]
) -> None:
    table = admin.get(reverse("staff_usage"), query).context["table"]
    assert tuple(map(int, table.sums)) == sums
    lines = table.page.object_list
    assert tuple(sum(int(line[n]) for line in lines) for n in (3, 4, 5)) == sums


def test_the_usage_table_is_filtered_by_key_and_days(
    admin: Client, used: tuple[Organization, Key, Key]
) -> None:
    _, first, second = used
    today = timezone.now().astimezone(dt.UTC).date()
    url = reverse("staff_usage")
    query = {"key": first.public_id, "start": str(today), "end": str(today)}
    table = admin.get(url, query).context["table"]
    assert [(line.day, line.accepted, line.refused) for line in table.page.object_list] == [(today, 10, 3)]
    early = {"start": str(today - dt.timedelta(days=60)), "key": second.public_id}
    assert admin.get(url, early).context["table"].sums.accepted == 1100


def test_the_usage_table_is_filtered_by_meter_and_mixes_no_units(
    admin: Client, used: tuple[Organization, Key, Key]
) -> None:
    url, (_, first, _) = reverse("staff_usage"), used
    builders.meter("hours", decimals=3)
    count(first, timezone.now(), 1500, meter="hours")
    everything = admin.get(url)
    assert everything.context["table"].sums == (1617, 3, "")
    assert "Choose a meter" in text(everything)
    hours = admin.get(url, {"meter": "hours"})
    assert hours.context["table"].sums == (1500, 0, "1.500")
    assert [line.quantity for line in hours.context["table"].page.object_list] == ["1.500"]
    assert admin.get(url, {"meter": "requests"}).context["table"].sums == (117, 3, "117")
    for junk in ("unknown", "a\0", "x" * 5000):
        assert admin.get(url, {"meter": junk}).status_code == 400


@override_settings(USAGE_RESOURCES=2)
def test_staff_see_who_has_more_resources_than_are_kept(admin: Client) -> None:
    acme = builders.organization("acme")
    assert "More resources" not in text(admin.get(reverse("staff")))
    with transaction.atomic():
        resources.bounded((acme.pk, "requests", name) for name in "abc")
        resources.bounded([(10**9, "requests", name) for name in "abc"])  # a restored database lost it
    page = admin.get(reverse("staff"))
    full = [(each.organization, each.bound.kept) for each in page.context["full"]]
    assert sorted(full, key=str) == sorted([(acme, 2), (None, 2)], key=str)
    assert "Unknown (1000000000)" in text(page)


def test_the_usage_table_is_paged_in_the_same_queries(admin: Client) -> None:
    now = timezone.now()
    url = reverse("staff_usage")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(url).status_code == 200
        return len(captured)

    keys = [builders.key(builders.organization(f"org-{n}")).key for n in range(6)]
    count(keys[0], now, 1)
    queries()
    few = queries()
    for key in keys:
        for day in range(1, 11):
            count(key, now - dt.timedelta(days=day), 1)
    assert queries() == few
    page = admin.get(url, {"page": "2"}).context["table"].page
    assert (page.number, len(page.object_list), page.paginator.count) == (2, 11, 61)


def test_usage_of_an_organization_that_is_gone_is_still_shown(admin: Client) -> None:
    key = builders.key(builders.organization("acme")).key
    count(key, timezone.now(), 4)
    for rows in (Rollup, OrganizationRollup):
        rows.objects.update(organization_id=987_654)
    assert "Unknown (987654)" in text(admin.get(reverse("staff_usage")))
    assert "Unknown (987654)" in text(admin.get(reverse("staff")))


@pytest.mark.parametrize("junk", ["\x00", "abc", "9" * 40, "0001-01-01", "9999-12-31", "-1", "x" * 9000, "'"])
@pytest.mark.parametrize("name", ["organization", "key", "start", "end", "outcome", "page"])
def test_no_junk_in_the_filters_is_an_error_of_the_server(admin: Client, name: str, junk: str) -> None:
    assert admin.get(reverse("staff_usage"), {name: junk}).status_code in (200, 400)


def test_too_long_a_range_is_refused_with_a_sentence(admin: Client) -> None:
    response = admin.get(reverse("staff_usage"), {"start": "2020-01-01", "end": "2025-01-01"})
    assert response.status_code == 400
    assert "at most 366 days" in text(response)


# --- finding a key -------------------------------------------------------------------------------


def found(client: Client, pasted: str) -> list[Key]:
    response = client.post(reverse("staff_find_key"), {"secret": pasted})
    return [each.key for each in response.context["search"].keys]


def test_a_pasted_key_is_found_and_kept_nowhere(admin: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    issued = builders.key(builders.organization("acme"))
    response = admin.post(reverse("staff_find_key"), {"secret": f" {issued.plaintext} "})
    assert response.status_code == 200
    assert reverse("admin:keys_key_change", args=[issued.key.pk]) in text(response)
    assert issued.plaintext not in text(response)
    mistyped = issued.plaintext[:-6] + "000000"
    response = admin.post(reverse("staff_find_key"), {"secret": mistyped})
    assert response.status_code == 400
    assert mistyped not in text(response)
    assert "No key here is this one" in text(response)
    assert issued.plaintext[8:40] not in caplog.text


def test_a_key_is_found_by_its_last_four_and_its_id_also_when_it_ended(admin: Client) -> None:
    now = timezone.now()
    acme = builders.organization("acme")
    issued = builders.key(acme, now=now - dt.timedelta(days=9), expires_at=now - dt.timedelta(days=1))
    other = builders.key(acme).key
    hint = issued.secret.hint
    other.secrets.update(hint=hint)
    lifecycle.revoke_key(lifecycle.command_actor(), other, reason="Leaked", now=now)
    assert set(found(admin, hint)) == {issued.key, other}
    assert set(found(admin, issued.secret.display)) == {issued.key, other}
    assert found(admin, other.public_id) == [other]
    assert found(admin, issued.plaintext) == [issued.key]
    shown = text(admin.post(reverse("staff_find_key"), {"secret": hint}))
    assert "Expired" in shown
    assert "Leaked" in shown
    assert shown.count("Revoke now") == 1


def test_a_found_key_says_why_it_was_refused_lately_and_is_revoked_at_once(admin: Client) -> None:
    issued = builders.key(builders.organization("acme"))
    now = timezone.now()
    for sequence, outcome in enumerate(("EXPIRED", "IP_NOT_ALLOWED")):
        Refusal.objects.create(
            spool="aaaaaaaaaaa",
            sequence=sequence,
            at=now - dt.timedelta(minutes=sequence),
            organization=issued.key.organization,
            key=issued.key,
            secret=issued.secret,
            outcome=outcome,
            address="192.0.2.7",
        )
    response = admin.post(reverse("staff_find_key"), {"secret": issued.plaintext})
    (shown,) = response.context["search"].keys
    assert [row.title for row in shown.rows] == ["Expired", "Address not allowed"]
    assert "192.0.2.7" in text(response)
    form = {"action": "revoke", "confirmed": "yes", "_selected_action": issued.key.pk, "reason": "Found"}
    assert admin.post(reverse("admin:keys_key_changelist"), form).status_code == 302
    assert builders.reloaded(issued.key).revoked_reason == "Found"


def test_a_replaced_secret_is_told_apart_from_its_key(admin: Client) -> None:
    issued = builders.key(builders.organization("acme"))
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=dt.timedelta(0), now=timezone.now())
    shown = text(admin.post(reverse("staff_find_key"), {"secret": issued.plaintext}))
    assert "This secret has ended" in shown


@pytest.mark.parametrize(
    ("pasted", "sentence"),
    [
        ("nonsense", "This is neither a key, nor the last four characters of one, nor a key’s id."),
        ("4nIsvQw8dRk-1284", "This is the id of a request. Look it up under Refusals."),
        ("9aXc", "No key here has this id or these last four characters."),
    ],
)
def test_what_finds_no_key_is_answered_in_the_words_of_this_search(
    admin: Client, pasted: str, sentence: str
) -> None:
    assert sentence in text(admin.post(reverse("staff_find_key"), {"secret": pasted}))


def test_a_key_is_not_looked_for_in_an_address(admin: Client) -> None:
    issued = builders.key(builders.organization("acme"))
    response = admin.get(reverse("staff_find_key"), {"secret": issued.plaintext})
    assert response.status_code == 200
    assert issued.plaintext not in text(response)


@pytest.mark.parametrize("junk", ["", "\x00", "x" * 100_000, "lk_live_", "🔑"])
def test_no_junk_pasted_is_an_error_of_the_server(admin: Client, junk: str) -> None:
    assert admin.post(reverse("staff_find_key"), {"secret": junk}).status_code == 400
