"""Random edits through every door: none of them ever takes a key outside its policy.

`test_policy_doors.py` runs a short form, `python -m tests.faults.policies --edits 10000` the long one. What a
policy that was tightened later has left outside may stay so, and nothing else: see `Doors._judge`.
"""

import datetime as dt
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from keys import lifecycle
from keys.audit import Actor
from keys.compliance import SETTINGS, Facts, Rule, Terms, broken
from keys.directory import Directory
from keys.models import Key, Organization, Policy, RequestState, Scope, ScopeRequest
from keys.scopes import STAFF_ONLY
from tests import builders
from tests.keys.admin_forms import edit_form, key_form, page
from usage import metering

STEPS = 40  # edits of one history
DAY = dt.timedelta(days=1)
SCOPES = ("orders:read", "orders:write", "orders:refund", "portal:keys", "portal:verify")
COMMAND = lifecycle.command_actor()


class Wish(NamedTuple):
    """What an edit asks for, whether the policy lets it or not."""

    scopes: list[str]
    days: int | None  # until it expires; None: never
    networks: list[str]
    environment: str


class Now(NamedTuple):
    """A key as it is, and what of its policy it breaks."""

    facts: Facts
    rules: frozenset[Rule]
    disabled: bool
    revoked: bool


wishes = st.builds(
    Wish,
    st.lists(st.sampled_from(SCOPES), unique=True, max_size=3),
    st.sampled_from([None, 1, 29, 31, 60, 400]),
    st.sampled_from([[], ["10.0.0.0/8"], ["2001:db8::/32"]]),
    st.sampled_from(["live", "test"]),
)
policies = st.fixed_dictionaries(
    {
        "all_scopes": st.sampled_from([True, True, False]),
        "scopes": st.sampled_from([SCOPES[:2], SCOPES[:3], SCOPES]),
        "approval_scopes": st.sampled_from([SCOPES[2:3], SCOPES[:1], ()]),
        "max_lifetime_days": st.sampled_from([None, 30, 90]),
        "expiry_required": st.booleans(),
        "networks_required": st.booleans(),
        "max_keys": st.sampled_from([None, 4]),
        "idle_days": st.sampled_from([None, 10]),
    }
)
indexes = st.integers(0, 30)


class Doors(RuleBasedStateMachine):
    """One organization, its keys, and everybody who can change them."""

    folder: Path
    tally: ClassVar[Counter[str]]  # what was done in all histories

    def __init__(self) -> None:
        super().__init__()
        self.undone = transaction.atomic()
        self.undone.__enter__()
        for name in SCOPES:
            builders.scope(name)
        owner = builders.user("alice")
        self.acme = builders.organization("acme", owner=owner)
        self.member = lifecycle.member_actor(owner, self.acme.memberships.get())
        self.staff = builders.staff("sam")
        self.alice = builders.signed_in(Client(), owner)
        self.admin = builders.signed_in(Client(), self.staff)
        self.manager = builders.key(self.acme, scopes=("portal:keys", "orders:read", "orders:write"))
        self.directory = Directory(process_id="test", lock_dir=self.folder)
        self.directory.refresh()
        metering.start(self.directory)

    def teardown(self) -> None:
        metering.stop()
        transaction.set_rollback(True)
        self.undone.__exit__(None, None, None)

    # --- how an edit is judged ---

    def _all(self) -> dict[int, Now]:
        self.acme = Organization.objects.select_related("policy").get(pk=self.acme.pk)
        terms, now = Terms.of(self.acme.policy), timezone.now()
        found = {}
        for key in self.acme.keys.prefetch_related("scopes"):
            facts = Facts.of(key)
            rules = frozenset(broken(terms, facts, now)) & SETTINGS
            found[key.pk] = Now(facts, rules, key.disabled_at is not None, key.revoked_at is not None)
        return found

    def _edit(self, act: Callable[[], Any], *, trusted: bool) -> None:
        """Carry out an edit, which may be refused, and judge what it did to every key."""
        before = self._all()
        self.tally["edits"] += 1
        try:
            with transaction.atomic():
                answer = act()
        except (lifecycle.Refused, CommandError):
            self.tally["refused"] += 1
            assert self._all().keys() == before.keys()
            return
        assert getattr(answer, "status_code", 200) < 500
        self._judge(before, self._all(), trusted)

    def _judge(self, before: dict[int, Now], after: dict[int, Now], trusted: bool) -> None:
        """A new or an enabled key breaks no rule. An edit breaks none that the key kept before, and what it
        sets is within the policy. Nobody but staff gives what is theirs to give or to approve."""
        self.tally["changed"] += before != after
        self.tally["outside"] += any(now.rules for now in after.values())
        policy = self.acme.policy
        reserved = STAFF_ONLY | set(policy.approval_scopes.values_list("name", flat=True))
        for pk, now in after.items():
            was = before.get(pk)
            gained = now.facts.scopes - (was.facts.scopes if was else frozenset())
            if was is None or (was.disabled and not now.disabled):
                assert not now.rules
            else:
                assert now.rules <= was.rules
                if now.facts.expires_at != was.facts.expires_at:
                    assert not now.rules & {Rule.EXPIRY, Rule.LIFETIME}
                if now.facts.networks != was.facts.networks:
                    assert Rule.NETWORKS not in now.rules
                assert now.facts.environment == was.facts.environment
                assert now.revoked or not was.revoked
            assert policy.all_scopes or gained <= (Terms.of(policy).scopes or frozenset()) | STAFF_ONLY
            assert trusted or not gained & reserved
        unrevoked = sum(not now.revoked for now in after.values())
        if policy.max_keys is not None and after.keys() > before.keys():
            assert unrevoked <= policy.max_keys

    def _key(self, index: int, *, disabled: bool = False) -> Key:
        """One that works, or a disabled one if there is any; not the manager, which goes on calling."""
        keys = self.acme.keys.select_related("organization__policy").filter(revoked_at=None).order_by("pk")
        others = keys.exclude(pk=self.manager.key.pk)
        found = list(others.filter(disabled_at__isnull=not disabled) or others or keys)
        return found[index % len(found)]

    # --- the doors ---

    def _fields(self, wish: Wish) -> dict[str, Any]:
        at = None if wish.days is None else timezone.now() + wish.days * DAY
        return {"scopes": wish.scopes, "expires_at": at, "networks": wish.networks}

    def _actor(self, who: str) -> Actor:
        actors = {"member": self.member, "staff": lifecycle.staff_actor(self.staff), "command": COMMAND}
        return actors[who]

    @initialize(fields=policies)
    def begin(self, fields: dict[str, Any]) -> None:
        """Two keys of a time when everything was let, and a policy."""
        for environment in ("live", "test"):
            builders.key(self.acme, scopes=SCOPES[:2], environment=environment, expires_at=None)
        self.change_policy(fields, another=False)

    @rule(wish=wishes, who=st.sampled_from(["member", "staff", "command"]), imported=st.booleans())
    def create(self, wish: Wish, who: str, imported: bool) -> None:
        fields = {"name": "x", "environment": wish.environment, "now": timezone.now()} | self._fields(wish)
        if imported:
            fields |= {"sha256": os.urandom(32).hex()}
        act: Callable[..., Any] = lifecycle.import_key if imported else lifecycle.create_key
        self._edit(lambda: act(self._actor(who), self.acme, **fields), trusted=who != "member")

    @rule(wish=wishes, index=indexes, who=st.sampled_from(["member", "staff"]))
    def edit(self, wish: Wish, index: int, who: str) -> None:
        fields, key = self._fields(wish), self._key(index)
        self._edit(
            lambda: lifecycle.edit_key(self._actor(who), key, now=timezone.now(), **fields),
            trusted=who != "member",
        )

    @rule(index=indexes, act=st.sampled_from(["disable", "enable", "rotate", "leaked", "rename", "revoke"]))
    def switch(self, index: int, act: str) -> None:
        key, now = self._key(index, disabled=act == "enable"), timezone.now()
        acts: dict[str, Callable[[], Any]] = {
            "disable": lambda: lifecycle.disable_key(self.member, key, now=now),
            "enable": lambda: lifecycle.enable_key(self.member, key, now=now),
            "rotate": lambda: lifecycle.rotate_key(self.member, key, overlap=DAY, now=now),
            "leaked": lambda: lifecycle.rotate_key(self.member, key, overlap=0 * DAY, now=now),
            "rename": lambda: lifecycle.edit_key(self.member, key, name="y", now=now),
            "revoke": lambda: lifecycle.revoke_key(self.member, key, now=now),
        }
        if act != "revoke" or key.pk != self.manager.key.pk:
            self._edit(acts[act], trusted=False)

    @rule(index=indexes)
    def turn(self, index: int) -> None:
        """Off if it is on, and on if it is off: what lay by while the policy changed comes back."""
        key, now = self._key(index), timezone.now()
        lifecycle.disable_key(self.member, key, now=now)
        disabled = self._key(index, disabled=True)
        self._edit(lambda: lifecycle.enable_key(self.member, disabled, now=now), trusted=False)

    @rule(wish=wishes, index=indexes, new=st.booleans())
    def page(self, wish: Wish, index: int, new: bool) -> None:
        """A member's form: the page is opened, filled in and sent."""
        key = self._key(index)
        url = reverse("key_new", args=["acme"])
        if not new:
            url = reverse("key_edit", args=["acme", key.public_id])
        shown = self.alice.get(url).content.decode()
        hidden = dict(re.findall(r'<input type="hidden" name="(once|seen)" value="([^"]*)"', shown))
        on = "" if wish.days is None else str((timezone.now() + wish.days * DAY).date())
        sent = hidden | {"name": "x", "environment": wish.environment, "networks": "\n".join(wish.networks)}
        sent |= {"expiry": "custom" if on else "never", "expires_on": on, "rates": "", "metadata": ""}
        self._edit(lambda: self.alice.post(url, sent | {"scopes": wish.scopes}), trusted=False)

    @rule(wish=wishes, index=indexes, method=st.sampled_from(["POST", "PATCH", "rotate"]))
    def api(self, wish: Wish, index: int, method: str) -> None:
        """The manager's key, over HTTP."""
        at = None if wish.days is None else (timezone.now() + wish.days * DAY).isoformat()
        body: dict[str, Any] = {"scopes": wish.scopes, "expires_at": at, "networks": wish.networks}
        path = f"/v1/keys/{self._key(index).public_id}"
        if method == "POST":
            path, body = "/v1/keys", body | {"name": "x", "environment": wish.environment}
        elif method == "rotate":
            path, body = f"{path}/rotate", {"expires_at": at, "overlap": 0}
        self.directory.refresh()
        headers = {"Authorization": f"Bearer {self.manager.plaintext}"}
        verb = "PATCH" if method == "PATCH" else "POST"
        self._edit(
            lambda: Client().generic(
                verb, path, json.dumps(body), content_type="application/json", headers=headers
            ),
            trusted=False,
        )

    @rule(wish=wishes, index=indexes, new=st.booleans())
    def staff_page(self, wish: Wish, index: int, new: bool) -> None:
        """The admin's forms."""
        key = self._key(index)
        pks = list(Scope.objects.filter(name__in=wish.scopes).values_list("pk", flat=True))
        fields: dict[str, Any] = {"scopes": pks, "networks": "\n".join(wish.networks)}
        at = None if wish.days is None else timezone.now() + wish.days * DAY
        day, hour = (f"{at:%Y-%m-%d}", f"{at:%H:%M:%S}") if at else ("", "")
        fields |= {"expires_at_0": day, "expires_at_1": hour}
        if new:
            choice = {"environment": wish.environment, "expiry": "date" if at else "never"}
            url, sent = page("key", "add"), key_form(self.admin, self.acme, **fields | choice)
        else:
            url, sent = page("key", "change", key.pk), edit_form(key, **fields)
        self._edit(lambda: self.admin.post(url, sent), trusted=True)

    @rule(wish=wishes, index=indexes, new=st.booleans())
    def command(self, wish: Wish, index: int, new: bool) -> None:
        arguments = ["rotate_key", self._key(index).public_id]
        if new:
            arguments = ["create_key", "--organization=acme", "--name=x", f"--environment={wish.environment}"]
            arguments += [f"--scope={scope}" for scope in wish.scopes]
            arguments += [f"--network={network}" for network in wish.networks]
            arguments += ["--expires-in=" + ("never" if wish.days is None else f"{wish.days}d")]
        self._edit(lambda: call_command(*arguments, stdout=io.StringIO(), stderr=io.StringIO()), trusted=True)

    @rule(index=indexes, scope=st.sampled_from(SCOPES), approve=st.booleans())
    def ask(self, index: int, scope: str, approve: bool) -> None:
        """A member asks; staff decide what has waited longest."""
        key, now = self._key(index), timezone.now()
        self._edit(
            lambda: lifecycle.request_scope(self.member, key, scope, reason="x", now=now), trusted=False
        )
        waiting = ScopeRequest.objects.filter(state=RequestState.PENDING).order_by("pk").first()
        if waiting is not None:
            act = lifecycle.approve_scope if approve else lifecycle.deny_scope
            self._edit(lambda: act(self._actor("staff"), waiting, now=now), trusted=True)

    @rule(fields=policies, another=st.booleans())
    def tighten(self, fields: dict[str, Any], another: bool) -> None:
        self.change_policy(fields, another=another)

    def change_policy(self, fields: dict[str, Any], *, another: bool) -> None:
        """Whatever becomes of the policy, no key changes by that, but for one that nobody uses."""
        before = self.acme.keys.order_by("pk")
        kept = list(before.values_list("pk", "expires_at", "networks", "disabled_at", "revoked_at"))
        chosen = {
            name: list(Scope.objects.filter(name__in=fields[name])) for name in ("scopes", "approval_scopes")
        }
        policy = self.acme.policy
        if another:
            count = Policy.objects.count()
            policy = lifecycle.create_policy(COMMAND, slug=f"p{count}", name="P", now=timezone.now())
            lifecycle.apply_policy(COMMAND, self.acme, policy, now=timezone.now())
        lifecycle.edit_policy(COMMAND, policy, now=timezone.now(), **fields | chosen)
        self._all()
        assert list(before.values_list("pk", "expires_at", "networks", "disabled_at", "revoked_at")) == kept
        later = timezone.now() + 6 * DAY
        self._edit(lambda: lifecycle.retire_idle(lambda *_: {}, through=later, now=later), trusted=False)


def run(folder: Path, edits: int) -> Counter[str]:
    """Histories until there were so many edits, with journals in `folder`: how many there were, how many were
    refused, how many changed a key, and how often an older key was outside a policy that came later."""
    tally: Counter[str] = Counter()
    machine = type("OneHistory", (Doors,), {"folder": folder, "tally": tally})
    while tally["edits"] < edits:
        tally["histories"] += (histories := -(-(edits - tally["edits"]) // STEPS))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=histories,
                stateful_step_count=STEPS,
                suppress_health_check=list(HealthCheck),
                deadline=None,
                database=None,
                phases=[Phase.generate],  # to shrink a history takes minutes, and its last edit says enough
            ),
        )
    return tally
