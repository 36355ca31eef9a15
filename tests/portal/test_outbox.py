"""Mails: each queued once and sent once, by any number of workers, through a real mail server."""

import datetime as dt
import threading
from collections.abc import Iterator

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from keys.models import Organization
from keys.permissions import Role
from portal import outbox
from portal.models import Mail
from tests import builders
from tests.builders import NOW
from tests.smtp import MailServer, mail_server
from tests.threads import at_once
from tests.waiting import until

pytestmark = pytest.mark.django_db

ALICE, BOB = "alice@example.com", "bob@example.com"


@pytest.fixture(autouse=True)
def _a_template(settings: Settings) -> None:
    """Templates of these tests alone; those of real mails have tests of their own."""
    templates = {
        "emails/news_subject.txt": "News of {{ name }}\n",
        "emails/news.txt": '{% extends "emails/base.txt" %}{% block content %}Of {{ name }}.{% endblock %}',
    }
    loaders = "django.template.loaders"
    options = dict(settings.TEMPLATES[0]["OPTIONS"])
    options["loaders"] = [
        (f"{loaders}.locmem.Loader", templates),
        f"{loaders}.filesystem.Loader",
        f"{loaders}.app_directories.Loader",
    ]
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    with mail_server() as server:
        settings.MAILERS = server.mailers
        yield server


def queue(once: str = "a", *to: str, name: str = "Acme", now: dt.datetime = NOW) -> None:
    outbox.queue(once, "news", {"name": name}, to or (ALICE,), now)


def test_a_mail_is_queued_once_whatever_is_asked_again() -> None:
    queue("a", ALICE, ALICE)
    queue("a", ALICE)
    queue("a", BOB)  # who came later is told of no old news
    queue("b", ALICE)
    assert sorted(Mail.objects.values_list("once", "to")) == [("a", ALICE), ("b", ALICE)]


def test_a_mail_belongs_to_the_transaction_that_queues_it() -> None:
    with transaction.atomic():
        queue()
        transaction.set_rollback(True)
    assert not Mail.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_at_once_queue_one() -> None:
    assert at_once([queue, queue]) == [None, None]
    assert Mail.objects.count() == 1


def test_a_mail_is_sent_with_the_portals_name_and_an_id_of_its_own(
    server: MailServer, settings: Settings
) -> None:
    settings.PORTAL_NAME = "Smith & Sons <Maps>"
    queue("a", ALICE, BOB, name="<Acme> & Söhne")
    assert outbox.send_due(NOW) == 2
    first, second = server.taken
    assert (first["To"], second["To"]) == (ALICE, BOB)
    assert first["Subject"] == "News of <Acme> & Söhne"
    assert first["Auto-Submitted"] == "auto-generated"
    assert len(set(server.ids())) == 2
    lines = first.get_content().splitlines()
    assert lines[0] == "Of <Acme> & Söhne."
    assert lines[-2:] == ["Smith & Sons <Maps>", "http://127.0.0.1:8000"]


def test_what_was_sent_is_not_sent_again_and_its_text_is_not_kept(server: MailServer) -> None:
    queue()
    assert [outbox.send_due(NOW), outbox.send_due(NOW + dt.timedelta(days=1))] == [1, 0]
    row = Mail.objects.get()
    assert (row.state, row.sent_at, row.text, row.tries) == ("sent", NOW, "", 1)
    assert len(server.taken) == 1


def test_a_subject_is_one_line_of_text_whatever_a_name_holds(server: MailServer) -> None:
    queue(name="A\r\nBcc: eve@example.com\x00\ud800" + "x" * 300)
    assert outbox.send_due(NOW) == 1
    assert server.taken[0]["Bcc"] is None
    assert len(server.taken[0]["Subject"]) == outbox.SUBJECT_LENGTH


@pytest.mark.django_db(transaction=True)
def test_several_workers_send_each_mail_once(server: MailServer) -> None:
    for number in range(20):
        queue(str(number))
    assert sum(map(int, map(str, at_once([lambda: outbox.send_due(NOW)] * 4)))) == 20  # an error is no number
    assert len(set(server.ids())) == len(server.taken) == 20


def test_a_mail_that_is_being_sent_is_nobody_elses(server: MailServer) -> None:
    queue()
    claimed = outbox._claim(NOW)
    assert claimed is not None
    assert outbox.send_due(NOW + dt.timedelta(minutes=1)) == 0


def test_a_mail_whose_worker_died_is_sent_under_the_same_id(server: MailServer) -> None:
    queue()
    died = outbox._claim(NOW)
    assert died is not None
    assert outbox.send_due(NOW + outbox.CLAIM) == 1
    assert server.ids() == [outbox.message_id(died)]


def test_a_recipient_who_is_refused_for_good_is_given_up(server: MailServer) -> None:
    server.answers = {ALICE: "550 5.1.1 no such alice@example.com"}
    queue("a", ALICE, BOB)
    assert outbox.send_due(NOW) == 1
    row = Mail.objects.get(to=ALICE)
    assert (row.state, row.error, row.text) == ("given up", "SMTPRecipientsRefused 550", "")


def test_a_recipient_who_is_refused_for_now_is_tried_again_ever_later(server: MailServer) -> None:
    server.answers = {ALICE: "451 4.7.1 greylisted"}
    queue()
    tried = [NOW + dt.timedelta(minutes=minute) for minute in range(8) if not outbox.send_due(at(minute))]
    assert len(tried) == 8
    assert Mail.objects.get().tries == 4  # after 0, 1, 3 and 7 minutes
    server.answers = {}
    assert outbox.send_due(NOW + dt.timedelta(minutes=15)) == 1


def test_what_nobody_takes_is_given_up_in_the_end(server: MailServer) -> None:
    server.answers = {ALICE: "451 4.7.1 greylisted"}
    queue()
    outbox.send_due(NOW)
    outbox.send_due(NOW + outbox.GIVE_UP)
    assert Mail.objects.get().state == "given up"


def at(minute: int) -> dt.datetime:
    return NOW + dt.timedelta(minutes=minute)


def test_a_server_that_is_away_ends_the_pass_and_loses_nothing(settings: Settings) -> None:
    with mail_server() as gone:
        settings.MAILERS = gone.mailers
    queue("a", ALICE, BOB)
    with pytest.raises(ConnectionRefusedError):
        outbox.send_due(NOW)
    assert [row.tries for row in Mail.objects.order_by("to")] == [1, 0]
    with mail_server() as back:
        settings.MAILERS = back.mailers
        assert outbox.send_due(at(1)) == 2


def test_an_address_that_is_none_stops_no_other(server: MailServer) -> None:
    queue("a", "no address", "söhne@example.com", BOB)
    assert outbox.send_due(NOW) == 1
    assert Mail.objects.get(to="no address").state == "given up"
    assert Mail.objects.get(to=BOB).state == "sent"


def test_a_failure_is_told_without_the_servers_words(
    server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = {ALICE: "550 5.1.1 no such alice@example.com"}
    queue()
    outbox.send_due(NOW)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "portal.outbox"]
    row = Mail.objects.get()
    assert said == f"Mail {row.pk} is given up: {row.error}"
    assert ALICE not in row.error


def test_nothing_is_opened_while_nothing_is_due(settings: Settings) -> None:
    settings.MAILERS = {
        "default": {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {"host": "127.0.0.1", "port": 1},
        }
    }
    assert outbox.send_due(NOW) == 0


@pytest.mark.django_db(transaction=True)
def test_a_workers_thread_sends_until_it_is_told_to_stop(server: MailServer) -> None:
    queue(now=timezone.now())
    stop = threading.Event()
    thread = threading.Thread(target=outbox.keep_sending, args=(stop,))
    thread.start()
    try:
        until(lambda: server.taken)
    finally:
        stop.set()
        thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_slow_server_leaves_no_second_worker_a_mail_that_is_being_sent(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty mails of 40 seconds each, by a clock of the test's own."""
    for number in range(50):
        queue(str(number))
    passed, stop, send = [0.0], threading.Event(), outbox._send
    others: list[bool] = []

    def slowly(mail: Mail, backend: BaseEmailBackend, now: dt.datetime) -> bool:
        passed[0] += 40
        due = NOW + dt.timedelta(seconds=passed[0])
        others.append(Mail.objects.filter(pk=mail.pk, next_try_at__lte=due).exists())
        if len(others) == 50:
            stop.set()
        return send(mail, backend, now)

    monkeypatch.setattr(outbox, "_send", slowly)
    monkeypatch.setattr(outbox, "monotonic", lambda: passed[0], raising=False)
    monkeypatch.setattr(timezone, "now", lambda: NOW + dt.timedelta(seconds=passed[0]))
    monkeypatch.setattr("portal.outbox.connections.close_all", lambda: None)
    monkeypatch.setattr(stop, "wait", lambda seconds: None)
    outbox.keep_sending(stop)
    assert len(server.taken) == len(others) == 50
    assert not any(others)


def test_old_mails_are_forgotten() -> None:
    queue("old")
    queue("new", now=NOW + dt.timedelta(days=1))
    assert outbox.prune(NOW + outbox.KEEP + dt.timedelta(hours=1)) == 1
    assert Mail.objects.get().once == "new"


def test_a_name_that_is_too_long_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="200 characters"):
        queue("x" * 201)


# --- who gets them ---


@pytest.fixture
def acme() -> Organization:
    acme = builders.organization("acme", owner=builders.user("alice"))
    builders.member(builders.user("bob"), acme, Role.DEVELOPER)
    builders.organization("globex", owner=builders.user("charlie"))
    return acme


def test_the_owners_get_it_and_who_is_named_besides(acme: Organization) -> None:
    members = {each.user.email: each.user for each in acme.memberships.select_related("user")}
    assert outbox.recipients(acme, [Role.OWNER]) == [ALICE]
    assert outbox.recipients(acme, [Role.OWNER], also=[members[BOB], members[ALICE], None]) == [ALICE, BOB]
    assert outbox.recipients(acme, []) == []


def test_who_is_no_member_gets_nothing(acme: Organization) -> None:
    assert outbox.recipients(acme, [], also=[builders.user("dora")]) == []
    bob = acme.memberships.get(user__email=BOB)
    person = bob.user
    bob.delete()
    assert outbox.recipients(acme, [Role.DEVELOPER], also=[person]) == []


def test_who_is_inactive_or_unverified_gets_nothing(acme: Organization) -> None:
    alice, bob = (acme.memberships.get(user__email=email).user for email in (ALICE, BOB))
    alice.is_active = False
    alice.save()
    EmailAddress.objects.filter(user=bob).update(verified=False)
    assert outbox.recipients(acme, list(Role)) == []


def test_a_person_gets_one_mail_at_the_primary_address(acme: Organization) -> None:
    alice = acme.memberships.get(user__email=ALICE).user
    EmailAddress.objects.create(user=alice, email="a@example.com", verified=True, primary=False)
    assert outbox.recipients(acme, [Role.OWNER]) == [ALICE]


# --- what staff see ---


def test_staff_see_the_state_of_mails_and_not_what_is_in_them(client: Client, acme: Organization) -> None:
    outbox.queue("a", "news", {"name": "PRIVATE"}, [ALICE], NOW, organization=acme)
    Mail.objects.update(subject="News")
    builders.signed_in(client, builders.staff())
    listing = reverse("admin:portal_mail_changelist")
    page = reverse("admin:portal_mail_change", args=[Mail.objects.get().pk])
    for url in (listing, listing + "?q=acme", listing + "?state=waiting", page):
        text = client.get(url).text
        assert "alice@example.com" in text
        assert "PRIVATE" not in text
    assert ALICE not in client.get(listing + "?state=sent").text
    assert client.post(page, {"subject": "x"}).status_code == 403
    assert client.get(reverse("admin:portal_mail_add")).status_code == 403
    assert client.get(listing + "?state=%00&q=%F0%9F&queued_at__year=9999999999").status_code < 500


def test_mail_in_memory_goes_through_the_same_door() -> None:
    queue()
    outbox.send_due(NOW)
    assert [each.to for each in mail.outbox] == [[ALICE]]
