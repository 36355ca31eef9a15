"""The pages that show keys and usage together: what they say, what they cost, and what junk does to them."""

import datetime as dt
import re

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from keys import lifecycle
from keys.models import Key, Organization, Secret
from keys.permissions import Role
from keys.verdicts import Code
from portal import key_pages, pages, reference
from portal.api.key_schemas import EditKeyBody, NewKeyBody
from tests import builders
from tests.builders import NOW, queries
from tests.portal.test_routes import TABLE
from tests.usage.gateways import PORTAL_HEADERS
from usage import event_format, gateway, watch
from usage.billing import Line
from usage.event_format import Rejection
from usage.models import QuotaUse, Refusal, ResponseRollup, SecretUse, Source, Spool, Watermark
from usage.models.sources import OTHER

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def url(name: str, key: Key | None = None) -> str:
    return reverse(name, kwargs={"organization": "acme"} | ({"key_id": key.public_id} if key else {}))


def calls(
    key: Key,
    number: int,
    outcome: Code = Code.VALID,
    *,
    ago: dt.timedelta = dt.timedelta(0),
    meter: str = "requests",
    resource: str = "",
    quantity: int | None = None,
) -> None:
    """`number` calls of the key in the hour that was `ago`; each costs 1 unless said otherwise."""
    each = number if quantity is None else quantity
    hour = (timezone.now() - ago).replace(minute=0, second=0, microsecond=0)
    builders.rollup(
        organization=key.organization,
        hour=hour,
        key=key,
        meter=meter,
        resource=resource,
        outcome=outcome.name,
        booked_period=hour.date().replace(day=1),
        calls=number,
        quantity=each if outcome is Code.VALID else 0,
    )


def refused(issued: lifecycle.Issued, at: dt.datetime, code: Code) -> None:
    """One refused call, as the drain lists it."""
    Refusal.objects.create(
        spool="aaaaaaaaaaa",
        sequence=Refusal.objects.count() + 1,
        at=at,
        organization=issued.key.organization,
        key=issued.key,
        secret=issued.secret,
        outcome=code.name,
        address="203.0.113.9",
    )


def used(secret: Secret, at: dt.datetime) -> None:
    SecretUse.objects.create(
        secret=secret, calls=1, last_used_at=at, address="203.0.113.9", user_agent="acme-tiles/4.2"
    )


# --- home -----------------------------------------------------------------------------------------


def test_home_leads_to_the_organization_last_seen(alice: Client, acme: Organization) -> None:
    person = acme.memberships.get().user
    builders.organization("zoo", owner=person)
    assert alice.get(reverse("home")).headers["Location"] == url("overview")
    alice.get(reverse("overview", kwargs={"organization": "zoo"}))
    assert alice.get(reverse("home")).headers["Location"].endswith("/o/zoo/")


def test_home_forgets_an_organization_that_one_has_left(alice: Client, acme: Organization) -> None:
    zoo = builders.organization("zoo", owner=builders.user("bob"))
    membership = builders.member(acme.memberships.get().user, zoo)
    alice.get(reverse("overview", kwargs={"organization": "zoo"}))
    membership.delete()
    assert alice.get(reverse("home")).headers["Location"] == url("overview")


def test_home_of_a_newcomer_is_the_welcome(client: Client) -> None:
    builders.signed_in(client, builders.user("bob"))
    assert client.get(reverse("home")).headers["Location"] == reverse("welcome")


def test_home_of_staff_without_an_organization_is_theirs(client: Client) -> None:
    builders.signed_in(client, builders.staff())
    assert client.get(reverse("home")).headers["Location"] == reverse("staff")


def test_the_landing_page_shows_those_signed_in_the_way_to_their_dashboard(
    client: Client, acme: Organization
) -> None:
    assert reverse("account_signup") in client.get("/").content.decode()
    builders.signed_in(client, acme.memberships.get().user)
    assert reverse("home") in client.get("/").content.decode()


def test_the_switcher_names_ones_organizations_and_no_others(alice: Client, acme: Organization) -> None:
    builders.organization("zoo", owner=acme.memberships.get().user)
    builders.organization("globex", owner=builders.user("bob"))
    html = alice.get(url("overview")).content.decode()
    assert "/o/zoo/" in html
    assert "globex" not in html


def test_a_suspended_organization_is_told(alice: Client, acme: Organization) -> None:
    lifecycle.suspend_organization(lifecycle.command_actor(), acme, reason="unpaid", now=timezone.now())
    for name in ("overview", "keys"):
        html = alice.get(url(name)).text
        assert "This organization is suspended" in html
        assert "unpaid" in html


def test_no_key_of_a_suspended_organization_looks_active(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    off = builders.key(acme).key
    command, now = lifecycle.command_actor(), timezone.now()
    lifecycle.disable_key(command, off, now=now)
    lifecycle.suspend_organization(command, acme, reason="unpaid", now=now)
    states = {row.key.pk: row.badge.state for row in alice.get(url("keys")).context["rows"]}
    assert states == {key.pk: "suspended", off.pk: "disabled"}
    assert alice.get(url("key", key)).context["page"].badge.text == "Suspended"


# --- the key list ---------------------------------------------------------------------------------


def names(client: Client, **query: str) -> list[str]:
    return [row.key.name for row in client.get(url("keys"), query).context["rows"]]


def test_keys_are_found_by_name_by_last_four_and_by_id(alice: Client, acme: Organization) -> None:
    staging = builders.key(acme, name="Staging")
    builders.key(acme, name="Production")
    assert names(alice, q="stag") == ["Staging"]
    assert names(alice, q=staging.secret.hint) == ["Staging"]
    assert names(alice, q=staging.secret.display) == ["Staging"]
    assert names(alice, q=staging.key.public_id) == ["Staging"]
    assert names(alice, q="nothing like it") == []


def test_a_whole_key_pasted_into_the_search_does_not_stay_in_the_address(
    alice: Client, acme: Organization
) -> None:
    issued = builders.key(acme, name="Staging")
    response = alice.get(url("keys"), {"q": issued.plaintext})
    assert response.status_code == 302
    assert issued.plaintext not in response.headers["Location"]
    followed = alice.get(response.headers["Location"])
    assert [row.key.name for row in followed.context["rows"]] == ["Staging"]
    assert "next time use only those" in followed.content.decode()


@pytest.mark.parametrize("text", ["Bearer {}", " {} ", "key: {}"])
def test_a_key_pasted_with_words_around_it_is_found_as_well(
    alice: Client, acme: Organization, text: str
) -> None:
    issued = builders.key(acme)
    response = alice.get(url("keys"), {"q": text.format(issued.plaintext)})
    assert response.headers["Location"] == f"{url('keys')}?q={issued.secret.hint}"


@pytest.mark.parametrize("text", ["{0:.30}", "Bearer {0:.40}", "{0}X", "token={0}", "{0}" + "," * 300])
def test_a_pasted_key_that_is_not_whole_is_taken_out_of_the_address(
    alice: Client, acme: Organization, text: str
) -> None:
    pasted = text.format(builders.key(acme).plaintext)
    response = alice.get(url("keys"), {"q": pasted})
    assert (response.status_code, response.headers["Location"]) == (302, url("keys"))
    assert "looks like a key" in alice.get(url("keys")).text


def test_a_key_pasted_into_the_live_search_opens_the_page_anew(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    response = alice.get(url("keys"), {"q": issued.plaintext}, headers={"HX-Request": "true"})
    assert response.headers["HX-Redirect"] == f"{url('keys')}?q={issued.secret.hint}"
    assert response.content == b""


def test_keys_are_filtered_by_state_and_environment(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    builders.key(acme, name="Active")
    builders.key(acme, name="Soon", environment="test", expires_at=now + DAY)
    revoked = builders.key(acme, name="Revoked").key
    lifecycle.revoke_key(lifecycle.command_actor(), revoked, now=now)
    assert names(alice) == ["Revoked", "Soon", "Active"]
    assert names(alice, state="active") == ["Soon", "Active"]
    assert names(alice, state="expiring") == ["Soon"]
    assert names(alice, state="revoked") == ["Revoked"]
    assert names(alice, environment="test") == ["Soon"]
    assert names(alice, environment="test", state="revoked") == []


@pytest.mark.parametrize("junk", ["\x00", "\udc80", "%", "_", "x" * 5000, "-1", "99999999999999999999", "🔑"])
def test_junk_in_the_filters_is_no_error(alice: Client, acme: Organization, junk: str) -> None:
    builders.key(acme)
    junk = junk.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    for name in ("keys", "usage", "usage_csv", "overview", "team"):
        query = dict.fromkeys(("q", "state", "environment", "page", "days", "by"), junk)
        assert alice.get(url(name), query).status_code == 200


def test_a_row_shows_the_last_days_the_sum_and_the_last_use(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    calls(issued.key, 5)
    calls(issued.key, 2, Code.RATE_LIMITED, ago=20 * DAY)
    calls(issued.key, 100, ago=40 * DAY)
    at = timezone.now()
    used(issued.secret, at)
    row = alice.get(url("keys")).context["rows"][0]
    assert (row.requests, row.last_used) == (5, at)
    assert row.spark
    assert row.secret == issued.secret


def test_the_list_costs_the_same_for_one_key_and_for_many(alice: Client, acme: Organization) -> None:
    builders.key(acme, scopes=("a:b",))
    one = queries(alice, url("keys"))
    for number in range(60):
        issued = builders.key(acme, name=f"Key {number}", scopes=("a:b", "c:d"))
        if number % 10 == 0:
            calls(issued.key, 3)
    assert queries(alice, url("keys")) == one
    assert one <= 14


def test_the_list_comes_in_pages_that_keep_the_filters(alice: Client, acme: Organization) -> None:
    for number in range(pages.PAGE + 1):
        builders.key(acme, name=f"Key {number}")
    first = alice.get(url("keys"), {"state": "active"})
    assert len(first.context["rows"]) == pages.PAGE
    found = re.search(r'rel="next" href="([^"]+)"', first.content.decode())
    assert found is not None
    second = alice.get(url("keys") + found[1].replace("&amp;", "&"))
    assert [row.key.name for row in second.context["rows"]] == ["Key 0"]


# --- a key's page ---------------------------------------------------------------------------------


def test_a_keys_page_says_who_still_uses_the_old_secret(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    now = timezone.now()
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=DAY, now=now)
    used(issued.secret, now)
    page = alice.get(url("key", issued.key)).context["page"]
    assert [(row.badge.text, row.use is not None) for row in page.secrets] == [
        ("Current", False),
        ("Stops in 23 hours", True),
    ]
    html = alice.get(url("key", issued.key)).content.decode()
    assert "203.0.113.9" in html
    assert "acme-tiles/4.2" in html
    assert url("key_end_overlap", issued.key) in html


def counted_through(moment: dt.datetime) -> None:
    """All journals are counted up to here."""
    Watermark.objects.update_or_create(id=1, defaults={"through": moment})


@pytest.mark.parametrize(
    ("last_call", "through", "title", "is_safe"),
    [
        (HOUR, dt.timedelta(0), "The old secret is still used", False),
        (25 * HOUR, dt.timedelta(0), "Safe to end now", True),
        (None, dt.timedelta(0), "Safe to end now", True),
        (60 * HOUR, dt.timedelta(0), "Safe to end now", True),  # before the rotation
        (None, 2 * HOUR, "Not all calls are counted yet", False),
        (HOUR, None, "The old secret is still used", False),
        (None, None, "Not all calls are counted yet", False),
    ],
)
def test_a_rotation_is_safe_to_end_once_nobody_has_used_the_old_secret_for_a_day(
    acme: Organization,
    last_call: dt.timedelta | None,
    through: dt.timedelta | None,
    title: str,
    is_safe: bool,
) -> None:
    issued = builders.key(acme, now=NOW - 50 * DAY)
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=7 * DAY, now=NOW - 48 * HOUR)
    if last_call is not None:
        used(issued.secret, NOW - last_call)
    if through is not None:
        counted_through(NOW - through)
    rotation = key_pages.key_page(acme, issued.key, None, NOW, with_history=False).rotation
    assert rotation is not None
    assert (rotation.title, rotation.is_safe) == (title, is_safe)


def test_an_old_secret_that_is_only_refused_is_still_used(acme: Organization) -> None:
    issued = builders.key(acme, now=NOW - 50 * DAY)
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=7 * DAY, now=NOW - 48 * HOUR)
    counted_through(NOW)
    refused(issued, NOW - HOUR, Code.RATE_LIMITED)
    rotation = key_pages.key_page(acme, issued.key, None, NOW, with_history=False).rotation
    assert rotation is not None
    assert not rotation.is_safe


def test_soon_after_a_rotation_nothing_is_safe_yet(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=DAY, now=timezone.now())
    counted_through(timezone.now())
    response = alice.get(url("key", issued.key))
    assert "After 24 hours without a call it is safe to end" in response.text
    for name in ("key_end_overlap", "key_extend_overlap", "key_roll_back"):
        assert url(name, issued.key) in response.text
    lifecycle.end_overlap(lifecycle.command_actor(), issued.key, now=timezone.now())
    assert "Rotation under way" not in alice.get(url("key", issued.key)).text


def test_calls_with_an_ended_secret_are_shown(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    now = timezone.now()
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=dt.timedelta(0), now=now)
    assert "Still tried after its end" not in alice.get(url("key", issued.key)).text
    refused(issued, now + dt.timedelta(seconds=1), Code.REVOKED)
    response = alice.get(url("key", issued.key))
    assert "Still tried after its end" in response.text
    assert [(late.secret, late.calls) for late in response.context["page"].late] == [(issued.secret, 1)]


def test_the_overlap_of_a_revoked_key_ended_with_it(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    actor = lifecycle.command_actor()
    key = builders.key(acme).key
    lifecycle.rotate_key(actor, key, overlap=DAY, now=now)
    lifecycle.revoke_key(actor, key, now=now + HOUR)
    page = alice.get(url("key", key)).text
    secrets = page.partition('id="secrets-title"')[2].partition("</table>")[0]
    assert secrets.count("Revoked") == 2
    assert "ended" not in secrets  # at a time that has not come yet


def test_a_revoked_key_has_nothing_left_to_spend(alice: Client, acme: Organization) -> None:
    actor, now = lifecycle.command_actor(), timezone.now()
    key = builders.key(acme, quotas=["1000/day"], rates=["10/second"]).key
    lifecycle.edit_policy(actor, acme.policy, quotas=["900/month"], now=now)
    assert "begins anew in" in alice.get(url("key", key)).text
    lifecycle.revoke_key(actor, key, now=now)
    page = alice.get(url("key", key)).text
    assert "1,000/day" in page  # what it had
    for text in ("requests left", "begins anew in", "what is left", "<dt>Expires</dt>"):
        assert text not in page


def test_a_keys_page_lists_where_its_secrets_are_used(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    now = timezone.now()
    assert "Not used yet" in alice.get(url("key", issued.key)).text
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=DAY, now=now)
    used(issued.secret, now)
    for address, agent in (("192.0.2.7", "<b>tiles</b>"), (OTHER, ""), ("", "")):
        Source.objects.create(
            secret=issued.secret, address=address, user_agent=agent, calls=1234, first_seen=now, last_seen=now
        )
    response = alice.get(url("key", issued.key))
    rows = response.context["page"].sources
    assert [(row.source.address, row.badge.text) for row in rows] == [
        ("", "Old"),
        ("192.0.2.7", "Old"),
        (OTHER, "Old"),
    ]
    assert escape("<b>tiles</b>") in response.text
    assert "unknown address" in response.text
    assert "1,234" in response.text


def test_a_keys_limits_have_commas_on_its_page_alone(alice: Client, acme: Organization) -> None:
    acme.policy.rates = ["20000/hour"]
    acme.policy.save()
    key = builders.key(acme, rates=["1000/second"], quotas=["5000/day"]).key
    html = alice.get(url("key", key)).text
    assert [text in html for text in ("1,000/second", "5,000/day", "20,000/hour")] == [True] * 3
    html = alice.get(url("key_edit", key)).text
    assert "1000/second" in html
    assert "1,000/second" not in html


def test_a_keys_page_says_why_calls_were_refused(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    calls(key, 3, Code.RATE_LIMITED)
    calls(key, 1, Code.IP_NOT_ALLOWED)
    page = alice.get(url("key", key)).context["page"]
    assert [
        (each.reason.title, each.reason.share, each.mend and each.mend.label) for each in page.reasons
    ] == [
        ("Rate limited", "75%", "Change its rate limits"),
        ("Address not allowed", "25%", "Change its allowed networks"),
    ]


def test_what_customers_wrote_is_escaped(alice: Client, acme: Organization) -> None:
    nasty = '"><script>alert(1)</script>'
    key = builders.key(acme, name=nasty, metadata={nasty[:40]: nasty}).key
    calls(key, 1)
    lifecycle.revoke_key(lifecycle.command_actor(), key, reason=nasty, now=timezone.now())
    by_key = url("usage") + "?by=key&table=time"
    for path in (url("key", key), url("keys"), url("overview"), url("activity"), by_key):
        assert "<script>alert" not in alice.get(path).content.decode()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.BILLING])
def test_a_keys_history_is_for_those_who_may_see_activity(
    client: Client, acme: Organization, role: Role
) -> None:
    key = builders.key(acme).key
    bob = builders.user("bob")
    builders.member(bob, acme, role)
    builders.signed_in(client, bob)
    with CaptureQueriesContext(connection) as captured:
        html = client.get(url("key", key)).text
    assert "History" not in html
    assert not [query for query in captured if "auditevent" in query["sql"]]


def test_a_keys_page_costs_twelve_queries_whatever_its_history(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme, expires_at=None, scopes=("orders:read",), quotas=["1000/day"])
    now = timezone.now()
    Spool.objects.create(id="aaaaaaaaaaa", host="east", pid=7, started_at=now, watermark=now)
    calls(issued.key, 3, Code.RATE_LIMITED)
    used(issued.secret, now)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    QuotaUse.objects.create(
        organization=acme, key_id=issued.key.pk, meter="requests", unit="day", start=today, spent=3
    )
    watch.refresh([issued.key], now)
    few = queries(alice, url("key", issued.key))
    assert queries(alice, url("key", builders.key(acme, name="Unused").key)) <= 12
    for n in range(key_pages.HISTORY_PAGE + 2):
        lifecycle.edit_key(lifecycle.command_actor(), issued.key, name=f"Name {n}", now=now - HOUR)
    assert queries(alice, url("key", issued.key)) == few <= 12


def test_how_the_api_answered_is_shown_where_it_is_known(alice: Client, acme: Organization) -> None:
    key, other = builders.key(acme).key, builders.key(acme, name="Other").key
    globex = builders.key(builders.organization("globex")).key
    for path in (url("key", key), url("usage")):
        assert "answers-title" not in alice.get(path).text
    before = queries(alice, url("key", key)), queries(alice, url("usage"))
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for of, status_class, count in ((key, 2, 1980), (key, 5, 20), (other, 4, 7000), (globex, 2, 77777)):
        for resource in ("orders", "rows"):
            ResponseRollup.objects.create(
                organization=of.organization, hour=hour, key=of, resource=resource,
                status_class=status_class, responses=count,
            )  # fmt: skip
    mine = [
        (each.status, each.responses, each.share)
        for each in alice.get(url("key", key)).context["page"].answers
    ]
    assert mine == [("2xx", 3960, "99%"), ("5xx", 40, "1%")]
    everyones = alice.get(url("usage"))
    assert [(each.status, each.responses) for each in everyones.context["usage"].answers] == [
        ("2xx", 3960),
        ("4xx", 14000),
        ("5xx", 40),
    ]
    assert "14,000" in everyones.text
    assert "The API was at fault" in everyones.text
    # The key's page asks once it is known that there is an answer.
    assert (queries(alice, url("key", key)) - 1, queries(alice, url("usage"))) == before


def test_revoking_asks_first_and_says_who_would_notice(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    calls(issued.key, 7)
    html = alice.get(url("key_revoke", issued.key)).content.decode()
    assert "This key is in use" in html
    assert builders.reloaded(issued.key).revoked_at is None
    alice.post(url("key_revoke", issued.key), {"reason": "leaked"})
    key = builders.reloaded(issued.key)
    assert key.revoked_at is not None
    assert key.revoked_reason == "leaked"


def test_revoking_twice_keeps_the_first_reason(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    alice.post(url("key_revoke", key), {"reason": "first"})
    again = alice.post(url("key_revoke", key), {"reason": "second"}, follow=True)
    assert "revoked already" in again.content.decode()
    assert builders.reloaded(key).revoked_reason == "first"
    assert key.events.filter(act="key.revoked").count() == 1


@pytest.mark.parametrize("reason", ["a\x00b", "x" * 201, "a\u2028b"])
def test_a_reason_that_is_junk_revokes_nothing(alice: Client, acme: Organization, reason: str) -> None:
    key = builders.key(acme).key
    response = alice.post(url("key_revoke", key), {"reason": reason})
    assert "field-error" in response.content.decode()
    assert builders.reloaded(key).revoked_at is None


@pytest.mark.parametrize("path", ["key_\x00aaaaaaaaaaaaaaa", "key_short", "x" * 3000, "key_%00", "..%2f.."])
def test_a_made_up_id_is_404_before_any_query_sees_it(alice: Client, path: str) -> None:
    assert alice.get(f"{url('keys')}{path}/").status_code == 404


# --- until when ----------------------------------------------------------------------------------


def test_every_page_with_figures_says_until_when_they_are_complete(alice: Client, acme: Organization) -> None:
    at = dt.datetime(2026, 6, 15, 12, 34, tzinfo=dt.UTC)
    Spool.objects.create(id="aaaaaaaaaaa", host="east", pid=7, started_at=at, watermark=at)
    key = builders.key(acme).key
    calls(key, 10)
    for path in (url("overview"), url("keys"), url("key", key), url("key_revoke", key), url("usage")):
        page = alice.get(path).content.decode()
        assert re.search(r'Complete until\s+<time datetime="2026-06-15T12:34', page), path


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (dt.timedelta(days=6, hours=23), "6 days"),
        (dt.timedelta(days=1), "1 day"),
        (dt.timedelta(hours=5, minutes=59), "5 hours"),
        (dt.timedelta(minutes=1), "1 minute"),
        (dt.timedelta(seconds=3), "a moment"),
    ],
)
def test_a_span_is_its_largest_whole_unit(left: dt.timedelta, text: str) -> None:
    assert pages.span(left) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "—"), (0, 5, "0%"), (1, 3, "33%"), (42, 10_000, "0.42%"), (1, 10**9, "<0.01%"), (5, 5, "100%")],
)
def test_a_percentage_has_the_digits_that_mean_something(part: int, whole: int, text: str) -> None:
    assert pages.percent(part, whole) == text


# --- docs -----------------------------------------------------------------------------------------


def test_the_docs_list_every_code(client: Client) -> None:
    html = client.get(reverse("docs_errors")).content.decode()
    assert all(f"<code>{code.name}</code>" in html for code in Code)


def test_the_docs_list_the_apis_scopes_by_resource(client: Client) -> None:
    builders.scope("orders:read", "Read orders")
    builders.scope("tiles:read")
    html = client.get(reverse("docs_scopes")).content.decode()
    assert html.index("<code>orders</code>") < html.index("Read orders") < html.index("<code>tiles</code>")
    assert "portal:verify" not in html


def test_the_docs_list_the_portals_own_scopes_that_customers_choose(client: Client) -> None:
    html = client.get(reverse("docs_scopes")).content.decode()
    assert [name in html for name in ("portal:keys", "portal:usage", "portal:report")] == [True, True, False]


def test_every_page_of_the_docs_is_in_the_navigation_and_leads_to_the_next(client: Client) -> None:
    names = {name for name in TABLE if name.startswith("docs")} - {"docs_check_statement"}
    seen, path = [], reverse("docs")
    while path:
        html = client.get(path).content.decode()
        assert html.count(f'href="{path}" aria-current="page"') == 2
        seen.append(path)
        found = re.search(r'href="([^"]+)" rel="next"', html)
        path = found[1] if found else ""
    assert sorted(seen) == sorted(map(reverse, names))


def test_the_docs_list_the_meters(client: Client) -> None:
    builders.meter("hours", title="GPU hours", decimals=3)
    builders.meter("jobs", aggregation="count")
    html = client.get(reverse("docs_meters")).content.decode()
    assert all(text in html for text in ("Requests", "GPU hours", "0.001", "jobs", "1,000"))


def test_every_refusal_has_an_anchor_for_its_problem_document(client: Client) -> None:
    html = client.get(reverse("docs_errors")).content.decode()
    assert all(f'id="{code.name}"' in html for code in Code if code is not Code.VALID)
    linked = re.findall(rf'href="(?:{reverse("docs_errors")})?#([^"]+)"', html)
    assert {each for each in linked if f'id="{each}"' not in html} == set()


def test_every_recipe_is_in_the_docs_whole(client: Client) -> None:
    html = client.get(reverse("docs_gateway")).content.decode()
    recipes = {path.name: path.read_text() for path in (settings.BASE_DIR / "usage" / "recipes").iterdir()}
    assert len(recipes) > 5
    assert {name for name, text in recipes.items() if escape(text) not in html} == set()
    assert reverse("docs_gateway") in client.get(reverse("docs")).content.decode()


def test_every_column_of_a_statement_is_in_the_docs_and_the_script_to_check_one_is_served(
    client: Client,
) -> None:
    html = client.get(reverse("docs_billing")).content.decode()
    assert tuple(name for name, _ in reference.STATEMENT) == Line._fields
    assert {name for name in Line._fields if f">{name}</code>" not in html} == set()
    assert reverse("docs_check_statement") in html
    assert reverse("docs_billing") in client.get(reverse("docs")).content.decode()
    script = client.get(reverse("docs_check_statement"))
    assert script.content == (settings.BASE_DIR / "usage" / "check_statement.py").read_bytes()
    assert script["Content-Type"] == "text/x-python; charset=utf-8"


def test_every_reason_to_reject_an_event_and_every_field_is_in_the_docs(client: Client) -> None:
    html = client.get(reverse("docs_usage")).content.decode()
    assert {code for code, _ in reference.rejections()} == set(Rejection)
    assert {name for name, _ in reference.EVENT} == event_format._FIELDS
    assert {code.value for code in Rejection if f">{code.value}<" not in html} == set()
    assert {name for name, text in reference.usage_lines().items() if escape(text) not in html} == set()
    assert reverse("docs_usage") in client.get(reverse("docs")).content.decode()


def test_the_calls_that_manage_keys_are_in_the_docs(client: Client) -> None:
    html = client.get(reverse("docs_keys")).content.decode()
    fields = {*NewKeyBody.model_fields, *EditKeyBody.model_fields}
    assert {name for name, _ in reference.KEY_FIELDS} == fields
    assert {name for name, text in reference.key_lines().items() if escape(text) not in html} == set()
    assert reverse("docs_keys") in client.get(reverse("docs")).content.decode()


def test_the_gateways_parameters_and_headers_are_in_the_docs() -> None:
    assert {name for name, _ in reference.RULE} == {"scope", *gateway._SINGLE}
    assert {name for name, _ in reference.IDENTITY} == PORTAL_HEADERS


def test_quotas_stand_on_the_pages_of_who_has_them(alice: Client, acme: Organization) -> None:
    key = builders.key(acme, quotas=["1000/day"]).key
    calls(key, 912)
    calls(key, 3, Code.QUOTA_EXCEEDED)
    shown = alice.get(url("key", key)).content.decode()
    assert "This key, requests this day" in shown
    assert "912 of 1,000" in shown
    actor = lifecycle.command_actor()
    lifecycle.edit_policy(actor, acme.policy, quotas=["900/month"], now=timezone.now())
    for page in (url("key", key), url("overview")):
        shown = alice.get(page).content.decode()
        assert "All keys together, requests this month" in shown
        assert "912 of 900" in shown
        assert "Used up; begins" in shown
