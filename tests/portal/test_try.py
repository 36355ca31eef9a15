"""The pages where stricter limits are tried: what they show, and what junk does to them."""

import datetime as dt
import re

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.lifecycle import Issued
from keys.models import Organization
from keys.permissions import Role
from portal import trials as shown
from portal.models import Mail
from tests import builders
from tests.builders import NOW, queries
from tests.portal.test_pages import calls
from usage import trials
from usage.models import ScopeUse, Source, Trial

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme")


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    person = builders.user("alice")
    builders.member(person, acme)
    return builders.signed_in(client, person)


@pytest.fixture
def issued(acme: Organization) -> Issued:
    return builders.key(acme, scopes=("orders:read", "orders:write"), networks=["192.0.2.0/24"])


def here(issued: Issued, page: str = "key_try") -> str:
    return reverse(page, kwargs={"organization": "acme", "key_id": issued.key.public_id})


def seen(issued: Issued, address: str, agent: str = "") -> None:
    now = timezone.now()
    Source.objects.create(
        secret=issued.secret, address=address, user_agent=agent, calls=3, first_seen=now, last_seen=now
    )


def test_it_begins_with_what_the_key_has(alice: Client, issued: Issued) -> None:
    html = alice.get(here(issued)).text
    assert "192.0.2.0/24" in html
    assert html.count(" checked") == 2
    assert "would have" not in html.split("<form")[0]
    assert here(issued) in alice.get(here(issued, "key")).text


def test_each_limit_says_what_it_would_have_refused(alice: Client, issued: Issued) -> None:
    seen(issued, "198.51.100.9", "<b>curl</b>")
    ScopeUse.objects.create(key=issued.key, scope="orders:write", last_needed=timezone.now())
    calls(issued.key, 1000)
    query = {
        "tried": "1",
        "scopes": "orders:read",
        "networks": "192.0.2.1",
        "rates": "900/hour",
        "quotas": "800/month",
    }
    before = builders.reloaded(issued.key)
    html = alice.get(here(issued), query).text
    assert "These settings would have refused calls" in html
    assert "198.51.100.9" in html
    assert "&lt;b&gt;curl" in html
    assert "last asked for" in html
    assert "At least 100 calls in 1 hour" in html
    assert "200 beyond it in 1 month" in html
    after = builders.reloaded(issued.key)
    assert (after.networks, after.rates, after.quotas) == (before.networks, before.rates, before.quotas)
    assert not issued.key.events.filter(act="key.edited").exists()


def test_what_was_tried_is_carried_to_the_edit_page_and_saved_there_alone(
    alice: Client, issued: Issued
) -> None:
    query = "tried=1&scopes=orders%3Aread&networks=192.0.2.1%0D%0A192.0.2.2&rates=5%2Fminute&quotas="
    assert (
        f"{here(issued, 'key_edit')}?{query.replace('&', '&amp;')}"
        in alice.get(f"{here(issued)}?{query}").text
    )
    html = alice.get(f"{here(issued, 'key_edit')}?{query}").text
    assert "nothing is saved yet" in html
    assert "192.0.2.1\n192.0.2.2" in html.replace("\r\n", "\n")
    assert html.count('name="scopes" value="orders:read" checked') == 1
    assert 'value="orders:write" checked' not in html
    assert "nothing is saved yet" not in alice.get(here(issued, "key_edit")).text


@pytest.mark.parametrize("field", ["networks", "rates", "quotas", "scopes"])
@pytest.mark.parametrize("value", ["%00", "%ED%A0%80", "x" * 1_000_000, "1e9/hour", "9" * 30 + "/month"])
def test_junk_is_said_at_its_field(alice: Client, issued: Issued, field: str, value: str) -> None:
    response = alice.get(f"{here(issued)}?tried=1&networks=192.0.2.0/24&{field}={value}")
    assert response.status_code == 400
    assert "field-error" in response.text
    assert alice.get(f"{here(issued, 'key_edit')}?tried=1&{field}={value}").status_code == 200


def test_what_a_policy_asks_for_is_asked_for_here(alice: Client, acme: Organization, issued: Issued) -> None:
    policy = lifecycle.edit_policy(
        lifecycle.command_actor(), acme.policy, networks_required=True, now=timezone.now()
    )
    assert policy.networks_required
    assert alice.get(here(issued), {"tried": "1"}).status_code == 400


def test_a_key_in_the_address_does_not_stay_there(alice: Client, issued: Issued) -> None:
    response = alice.get(here(issued), {"tried": "1", "networks": issued.plaintext}, follow=True)
    assert response.redirect_chain == [(here(issued), 302)]
    assert issued.plaintext not in response.text


def test_a_revoked_key_has_nothing_to_try(alice: Client, issued: Issued) -> None:
    lifecycle.revoke_key(lifecycle.command_actor(), issued.key, reason="", now=timezone.now())
    assert alice.get(here(issued)).status_code == 302


def test_the_page_takes_as_many_queries_however_much_there_is(alice: Client, issued: Issued) -> None:
    there = f"{here(issued)}?tried=1&networks=203.0.113.1&rates=1/hour&quotas=1/day"
    counts = []
    for number in range(3):
        for each in range(number * 5):
            seen(issued, f"192.0.2.{number * 20 + each}")
            calls(issued.key, 1, resource=f"r{number}-{each}")
            ScopeUse.objects.create(key=issued.key, scope=f"s{number}:{each}", last_needed=timezone.now())
        counts.append(queries(alice, there))
    assert counts[1] == counts[2]


# --- trials --------------------------------------------------------------------------------------


def trial_page(trial: Trial, name: str = "trial") -> str:
    return reverse(name, kwargs={"organization": "acme", "trial_id": trial.pk})


def test_what_was_looked_back_on_is_tried_from_now_on(alice: Client, issued: Issued) -> None:
    html = alice.get(here(issued), {"tried": "1", "scopes": "orders:read", "rates": "5/hour"}).text
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', html.split("start-title")[2])
    sent = {name: value for name, value in fields if name != "csrfmiddlewaretoken"}
    response = alice.post(here(issued), sent | {"days": "7"}, follow=True)
    trial = issued.key.trials.get()
    assert response.redirect_chain == [(trial_page(trial), 302)]
    assert trial.changes["scopes"] == [["orders:read", "orders:write"], ["orders:read"]]
    assert trial.started_label == "alice@example.com"
    seen(issued, "198.51.100.9")
    ScopeUse.objects.create(key=issued.key, scope="orders:write", last_needed=timezone.now())
    html = alice.get(trial_page(trial)).text
    assert "These settings would have refused calls" in html
    assert "last asked for" in html
    assert trial_page(trial) in alice.get(here(issued, "key")).text
    assert "A trial is running here" in alice.get(here(issued)).text
    assert alice.post(here(issued), sent | {"days": "7"}).status_code == 400


def test_a_trial_is_applied_or_discarded_on_its_page(alice: Client, issued: Issued) -> None:
    trial = builders.trial(issued.key)
    assert "Nothing has changed" in alice.post(trial_page(trial, "trial_discard"), follow=True).text
    assert "ended already" in alice.post(trial_page(trial, "trial_apply"), follow=True).text
    assert not builders.reloaded(issued.key).rates
    trial = builders.trial(issued.key)
    assert "Applied" in alice.post(trial_page(trial, "trial_apply"), follow=True).text
    assert builders.reloaded(issued.key).rates == ["7/hour"]
    html = alice.get(reverse("trials", args=["acme"])).text
    assert html.index("Applied") < html.index("Discarded")


def test_limits_of_all_keys_are_tried_and_are_not_a_members_to_apply(alice: Client, issued: Issued) -> None:
    there = reverse("trial_new", args=["acme"])
    calls(issued.key, 1000)
    tried = {"tried": "1", "rates": "900/hour", "quotas": ""}
    assert "At least 100 calls in 1 hour" in alice.get(there, tried).text
    response = alice.post(there, tried | {"days": "30"}, follow=True)
    assert "All keys together" in response.text
    trial = Trial.objects.get(key=None)
    assert alice.post(trial_page(trial, "trial_apply")).status_code == 403
    assert "trial_apply" not in response.text.replace(trial_page(trial, "trial_discard"), "")


def test_another_organizations_trial_is_no_page(alice: Client, issued: Issued) -> None:
    theirs = builders.trial(builders.key(builders.organization("globex")).key)
    for name in ("trial", "trial_apply", "trial_discard"):
        assert alice.get(trial_page(theirs, name)).status_code == 404
        assert alice.post(trial_page(theirs, name)).status_code in (404, 405)
    assert Trial.objects.running().filter(pk=theirs.pk).exists()


@pytest.mark.parametrize("days", ["", "8", "x" * 1_000_000, "\x00", "\ud800"])
def test_a_trial_has_one_of_its_lengths(alice: Client, issued: Issued, days: str) -> None:
    sent = {"tried": "1", "networks": "192.0.2.1", "days": days.encode(errors="surrogatepass")}
    assert alice.post(here(issued), sent).status_code == 400
    assert alice.post(here(issued), {"days": "7", "networks": issued.plaintext}).status_code == 302
    assert not Trial.objects.exists()


def test_its_end_is_mailed_once_to_whoever_began_it_and_the_owners(acme: Organization) -> None:
    owner, alice = builders.user("olga"), builders.user("alice")
    builders.member(owner, acme, Role.OWNER)
    actor = lifecycle.member_actor(alice, builders.member(alice, acme))
    key = builders.key(acme, name="Backend", expires_at=NOW + 90 * DAY, now=NOW).key
    limits = {"scopes": [], "networks": ["192.0.2.1"], "rates": ["5/hour"], "quotas": []}
    trials.start(actor, key, days=7, now=NOW, **limits)
    Source.objects.create(
        secret=key.secrets.get(), address="198.51.100.9", calls=3, first_seen=NOW, last_seen=NOW + DAY
    )
    over = NOW + 8 * DAY
    assert [shown.end_due(NOW + DAY), shown.end_due(over), shown.end_due(over)] == [0, 1, 0]
    mails = Mail.objects.order_by("to")
    assert [mail.to for mail in mails] == ["alice@example.com", "olga@example.com"]
    assert mails[0].subject == "Acme: what stricter limits on “Backend” would have refused"
    assert "Allowed networks: anywhere -> 192.0.2.1/32" in mails[0].text
    assert "  - Calls from 1 address outside the networks." in mails[0].text


# --- by staff -------------------------------------------------------------------------------------


def test_staff_try_and_apply_limits_of_all_keys(client: Client, acme: Organization, issued: Issued) -> None:
    sam = builders.signed_in(client, builders.staff())
    there = reverse("staff_trials")
    calls(issued.key, 1000)
    assert "There is no organization" in sam.get(there, {"organization": "nobody"}).text
    tried = {"organization": "acme", "tried": "1", "rates": "900/hour", "quotas": ""}
    assert "At least 100 calls in 1 hour" in sam.get(there, tried).text
    sam.post(there, tried | {"days": "7"})
    trial = acme.trials.get()
    page = reverse("staff_trial", args=[trial.pk])
    assert page in sam.get(there).text
    assert sam.get(page).status_code == 200
    builders.organization("globex")  # of the same policy
    assert "not this organization" in sam.post(page, {"act": "apply"}, follow=True).text
    own = lifecycle.create_policy(lifecycle.command_actor(), slug="own", name="Own", now=NOW)
    lifecycle.apply_policy(lifecycle.command_actor(), acme, own, now=NOW)
    assert "Applied" in sam.post(page, {"act": "apply"}, follow=True).text
    own.refresh_from_db()
    assert own.rates == ["900/hour"]
    assert acme.events.get(act="trial.applied").actor_label == "sam@example.com"


def test_staff_who_may_not_change_a_key_or_a_policy_may_look_alone(
    client: Client, acme: Organization, issued: Issued
) -> None:
    mia = builders.signed_in(client, builders.user("mia", is_staff=True))
    trial = builders.trial(issued.key)
    page = reverse("staff_trial", args=[trial.pk])
    assert "Discard" not in mia.get(page).text
    for act in ("apply", "discard"):
        assert mia.post(page, {"act": act}).status_code == 403
    tried = {"organization": "acme", "tried": "1", "rates": "900/hour", "days": "7"}
    assert "Start the trial" not in mia.get(reverse("staff_trials"), tried).text
    assert mia.post(reverse("staff_trials"), tried).status_code == 403
    assert list(Trial.objects.running()) == [trial]


@pytest.mark.parametrize("slug", ["%00", "%ED%A0%80", "x" * 1_000_000, "a b"])
def test_junk_is_no_organization(client: Client, slug: str) -> None:
    sam = builders.signed_in(client, builders.staff())
    assert sam.get(f"{reverse('staff_trials')}?organization={slug}").status_code == 400
    assert sam.get(reverse("staff_trial", args=[7])).status_code == 404
