"""What people type into the forms about keys, and what lifecycle is given of it."""

import datetime as dt
from typing import Any

import pytest
from django.http import QueryDict

from keys import lifecycle
from keys.admin.forms import RotateForm as StaffRotateForm
from keys.forms import (
    KEEP,
    RENEW,
    EditKeyForm,
    KeyFilterForm,
    NewKeyForm,
    RevokeKeyForm,
    RotateKeyForm,
    end_of_day,
)
from keys.lifecycle import Conflict, Invalid
from keys.models import Organization
from tests import builders
from tests.builders import NOW

pytestmark = pytest.mark.django_db

JUNK = ["\x00", "a\x00b", "\udc80", "\u2028", "x" * 1_000_000, "🔑" * 200_000, "' OR 1=1 --", "<script>"]


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", now=NOW)


def post(**fields: Any) -> QueryDict:
    data = QueryDict(mutable=True)
    for name, value in fields.items():
        data.setlist(name, value if isinstance(value, list) else [value])
    return data


def new(acme: Organization, **fields: Any) -> NewKeyForm:
    return NewKeyForm(acme, NOW, post(**({"name": "A", "environment": "live", "expiry": "90"} | fields)))


def test_the_mistakes_of_all_fields_are_said_at_once(acme: Organization) -> None:
    form = new(
        acme, networks="203.0.113.0/33\nhome", rates="ten/second", quotas="5/year", metadata="nonsense"
    )
    assert form.errors == {
        "networks": [
            "'203.0.113.0/33' is not an address or a network.",
            "'home' is not an address or a network.",
        ],
        "rates": ["'ten/second' is not a rate; write it as 10/second, 600/minute or 1000/hour."],
        "quotas": [
            "'5/year' is not a quota; write it as 100000/month, 5000/day or 5000000 input_tokens/month."
        ],
        "metadata": ["Write each entry as name = value, one a line."],
    }


def test_a_name_is_enough_besides_what_is_preselected(acme: Organization) -> None:
    form = new(acme)
    assert form.is_valid(), form.errors
    assert form.values() == {
        "name": "A",
        "environment": "live",
        "scopes": [],
        "networks": [],
        "rates": [],
        "quotas": [],
        "metadata": {},
        "expires_at": NOW + dt.timedelta(days=90),
    }


def test_lists_are_read_by_line_and_by_comma(acme: Organization) -> None:
    form = new(acme, networks=" 10.0.0.0/8 \r\n\r\n192.0.2.1, 2001:db8::/32,", rates="10/second, 600/minute")
    assert form.is_valid()
    assert form.values()["networks"] == ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]
    assert form.values()["rates"] == ["10/second", "600/minute"]


def test_metadata_is_name_equals_value(acme: Organization) -> None:
    form = new(acme, metadata="team = payments\nurl=https://x.example/?a=b\nempty =")
    assert form.is_valid()
    assert form.values()["metadata"] == {"team": "payments", "url": "https://x.example/?a=b", "empty": ""}


@pytest.mark.parametrize("text", ["no equals sign", "= no name", "a = 1\na = 2"])
def test_metadata_that_is_no_such_list_is_refused(acme: Organization, text: str) -> None:
    form = new(acme, metadata=text)
    assert not form.is_valid()
    assert set(form.errors) == {"metadata"}


def test_never_and_a_date_are_understood(acme: Organization) -> None:
    form = new(acme, expiry="never")
    assert form.is_valid()
    assert form.values()["expires_at"] is None
    form = new(acme, expiry="custom", expires_on="2026-08-01")
    assert form.is_valid()
    assert form.values()["expires_at"] == dt.datetime(2026, 8, 1, 23, 59, 59, tzinfo=dt.UTC)


def test_a_date_is_asked_for_only_where_it_was_chosen(acme: Organization) -> None:
    form = new(acme, expiry="custom")
    assert not form.is_valid()
    assert set(form.errors) == {"expires_on"}
    assert new(acme, expiry="7", expires_on="").is_valid()


def test_only_what_the_policy_lets_is_offered(acme: Organization) -> None:
    policy = lifecycle.create_policy(
        lifecycle.command_actor(), slug="strict", name="Strict", max_lifetime_days=45, now=NOW
    )
    strict = builders.organization("strict", policy=policy, now=NOW)
    values = [value for value, _ in NewKeyForm(strict, NOW).fields["expiry"].choices]  # type: ignore[attr-defined]  # a ChoiceField
    assert values == ["7", "30", "45", "custom"]
    assert NewKeyForm(strict, NOW).fields["expiry"].initial == "45"
    assert not new(strict, expiry="never").is_valid()


def test_the_last_day_of_the_policy_is_within_it() -> None:
    longest = dt.datetime(2026, 8, 1, 10, 0, tzinfo=dt.UTC)
    assert end_of_day(dt.date(2026, 8, 1), longest) == longest
    assert end_of_day(dt.date(2026, 7, 31), longest) < longest


def test_a_scope_that_is_not_the_organizations_is_refused(acme: Organization) -> None:
    builders.scope("orders:read")
    assert new(acme, scopes=["orders:read"]).is_valid()
    for scope in ["orders:write", "portal:verify", "", "\x00", "x" * 10_000]:
        form = new(acme, scopes=["orders:read", scope])
        assert not form.is_valid()
        assert set(form.errors) == {"scopes"}


def test_scopes_are_grouped_and_the_portals_own_come_last(acme: Organization) -> None:
    for name in ("tiles:read", "tiles:write", "zoo:feed"):
        builders.scope(name)
    groups = NewKeyForm(acme, NOW, initial={"scopes": ["tiles:write", "nonsense"]}).scope_groups()
    assert [resource for resource, _ in groups] == ["tiles", "zoo", "portal"]
    assert [choice.checked for choice in groups[0][1]] == [False, True]
    names = {choice.name for _, choices in groups for choice in choices}
    assert "portal:verify" not in names


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize(
    "field",
    ["name", "environment", "scopes", "expiry", "expires_on", "networks", "rates", "quotas", "metadata"],
)
def test_junk_in_a_field_is_an_error_and_never_an_exception(
    acme: Organization, field: str, junk: str
) -> None:
    form = new(acme, **{"expiry": "custom", "expires_on": "2026-08-01", field: junk})
    if form.is_valid():
        values = form.values()
        try:
            lifecycle.create_key(lifecycle.command_actor(), acme, **values, now=NOW)
        except Invalid as refusal:
            form.refuse(refusal)
            assert field in form.errors
    else:
        assert set(form.errors) <= {field, "expires_on"}


def test_a_refusal_stands_at_its_field_or_above_the_form(acme: Organization) -> None:
    form = new(acme)
    assert form.is_valid()
    form.refuse(Invalid("Too late.", "expires_at"))
    form.refuse(Conflict("Full.", "no-such-field"))
    assert form.errors == {"expiry": ["Too late."], "__all__": ["Full."]}


def test_editing_begins_with_what_the_key_has(acme: Organization) -> None:
    issued = builders.key(
        acme,
        scopes=("orders:read",),
        networks=["10.0.0.0/8"],
        rates=["10/second"],
        quotas=["1000/month"],
        metadata={"a": "b"},
        now=NOW,
    )
    form = EditKeyForm(issued.key, NOW)
    shown = {
        name: form[name].value() for name in ("name", "scopes", "networks", "rates", "quotas", "metadata")
    }
    assert shown == {
        "name": "Backend",
        "scopes": ["orders:read"],
        "networks": "10.0.0.0/8",
        "rates": "10/second",
        "quotas": "1000/month",
        "metadata": "a = b",
    }
    sent = EditKeyForm(issued.key, NOW, post(**shown, expiry=KEEP))
    assert sent.is_valid(), sent.errors
    assert sent.values()["expires_at"] is lifecycle.UNSET


def test_a_scope_that_staff_granted_can_be_kept(acme: Organization) -> None:
    issued = builders.key(acme, scopes=("portal:verify",), now=NOW)
    form = EditKeyForm(issued.key, NOW, post(name="A", scopes=["portal:verify"], expiry=KEEP))
    assert form.is_valid(), form.errors


def test_rotation_offers_to_renew_what_expires_soon(acme: Organization) -> None:
    soon = builders.key(acme, expires_at=NOW + dt.timedelta(days=20), now=NOW).key
    late = builders.key(acme, expires_at=NOW + dt.timedelta(days=60), now=NOW).key
    assert RotateKeyForm(soon, NOW)["expiry"].value() == RENEW
    assert RotateKeyForm(late, NOW)["expiry"].value() == KEEP


def test_every_expiry_of_a_form_says_that_it_is_in_utc(acme: Organization) -> None:
    key = builders.key(acme, expires_at=NOW + dt.timedelta(days=5), now=NOW).key
    html = f"{EditKeyForm(key, NOW)['expiry']} {RotateKeyForm(key, NOW)['expiry']}"
    assert html.count("June 2026") == 2
    assert html.count("September 2026") == 1
    assert html.count("2026 UTC") == 3


def test_an_expired_key_can_only_be_rotated_with_a_new_expiry(acme: Organization) -> None:
    key = builders.key(acme, expires_at=NOW + dt.timedelta(days=1), now=NOW).key
    form = RotateKeyForm(key, NOW + dt.timedelta(days=2))
    assert [value for value, _ in form.fields["expiry"].choices] == [RENEW]  # type: ignore[attr-defined]  # a ChoiceField


@pytest.mark.parametrize("current", ["", "0", "-1", "x", "\x00", "9" * 30, "1.5"])
def test_a_secret_that_is_no_number_is_refused(acme: Organization, current: str) -> None:
    key = builders.key(acme, now=NOW).key
    form = RotateKeyForm(key, NOW, post(overlap="0", expiry=KEEP, current=current))
    assert not form.is_valid()


def test_a_secret_of_no_key_is_a_conflict(acme: Organization) -> None:
    key = builders.key(acme, now=NOW).key
    form = RotateKeyForm(key, NOW, post(overlap="0", expiry=KEEP, current=str(2**62)))
    assert form.is_valid()
    with pytest.raises(Conflict):
        form.values()


def test_staff_are_offered_what_members_are_and_a_month_more(acme: Organization) -> None:
    key = builders.key(acme, now=NOW).key
    members, staffs = RotateKeyForm(key, NOW).fields["overlap"], StaffRotateForm().fields["overlap"]
    offered = members.choices  # type: ignore[attr-defined]  # a ChoiceField
    assert [seconds for seconds, _ in offered] == [0, 3600, 86_400, 604_800]
    assert staffs.choices == [*offered, (2_592_000, "30 days")]  # type: ignore[attr-defined]  # as above
    assert (members.label, members.initial) == (staffs.label, staffs.initial)
    assert members.initial == 86_400


def test_the_policys_notes_say_how_scopes_by_approval_are_got(acme: Organization) -> None:
    scopes = [builders.scope("orders:refund"), builders.scope("orders:void")]
    acme.policy.approval_scopes.add(scopes[0])
    notes = NewKeyForm(acme, NOW).policy_notes()
    assert "orders:refund needs the provider’s approval: ask for it on the key’s page." in notes
    acme.policy.approval_scopes.add(scopes[1])
    notes = NewKeyForm(acme, NOW).policy_notes()
    assert "orders:refund, orders:void need the provider’s approval: ask for them on the key’s page." in notes


@pytest.mark.parametrize("overlap", ["1", "-1", "99999999", "", "nan"])
def test_only_the_offered_overlaps_are_taken(acme: Organization, overlap: str) -> None:
    issued = builders.key(acme, now=NOW)
    form = RotateKeyForm(issued.key, NOW, post(overlap=overlap, expiry=KEEP, current=str(issued.secret.pk)))
    assert not form.is_valid()


def test_a_reason_is_optional_and_short() -> None:
    assert RevokeKeyForm(post()).is_valid()
    assert not RevokeKeyForm(post(reason="x" * 201)).is_valid()


def test_a_filter_that_makes_no_sense_filters_nothing() -> None:
    chosen = KeyFilterForm(post(q="a\x00b", state="nonsense", environment="live"), []).chosen()
    assert {name: value for name, value in chosen.items() if value} == {"environment": "live"}
