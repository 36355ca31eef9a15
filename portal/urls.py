"""Every route of the portal. The gateway, health and readiness are not here: `portal.wsgi` answers them
beside Django."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, register_converter

from keys import urls as keys_urls  # first: it registers the key_id converter
from portal.api import urls as api_urls
from portal.views import (
    activity,
    alerts,
    attention,
    billing,
    brand,
    console,
    docs,
    errors,
    first_call,
    leaks,
    organization,
    public,
    refusals,
    team,
    terms,
    trials,
    welcome,
)
from portal.views import keys as key_views
from usage.billing import Period


class PeriodConverter:
    """A month as `2026-01`. Anything else is no page at all."""

    regex = "[0-9]{4}-[0-9]{2}"

    def to_python(self, value: str) -> Period:
        return Period.parse(value)  # ValueError: no page

    def to_url(self, value: Period) -> str:
        return str(value)


class InvitationConverter:
    """An invitation's public id. Anything else is no page at all, before any query sees it."""

    regex = "inv_[0-9A-Za-z]{16}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class RowConverter:
    """A row's number, of no more digits than a database takes."""

    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(PeriodConverter, "period")
register_converter(RowConverter, "row")
register_converter(InvitationConverter, "invitation_id")

_organization: list[URLPattern | URLResolver] = [
    path("", console.overview, name="overview"),
    path("keys/", key_views.keys, name="keys"),
    path("keys/revoke/", key_views.keys_revoke, name="keys_revoke"),
    path("keys/label/", key_views.keys_label, name="keys_label"),
    path("keys/<key_id:key_id>/", console.key, name="key"),
    path("keys/<key_id:key_id>/revoke/", console.key_revoke, name="key_revoke"),
    path("keys/<key_id:key_id>/try/", trials.key_try, name="key_try"),
    path("keys/<key_id:key_id>/first-call/", first_call.key_first_call, name="key_first_call"),
    path("keys/<key_id:key_id>/leaks/", leaks.key_leaks, name="key_leaks"),
    path("attention/", attention.attention, name="attention"),
    path("keys/<key_id:key_id>/signals/<slug:kind>/mend/", attention.signal_mend, name="signal_mend"),
    path(
        "keys/<key_id:key_id>/signals/<slug:kind>/dismiss/", attention.signal_dismiss, name="signal_dismiss"
    ),
    path("trials/", trials.trials_list, name="trials"),
    path("trials/new/", trials.trial_new, name="trial_new"),
    path("trials/<row:trial_id>/", trials.trial, name="trial"),
    path("trials/<row:trial_id>/apply/", trials.trial_apply, name="trial_apply"),
    path("trials/<row:trial_id>/discard/", trials.trial_discard, name="trial_discard"),
    path("usage/", console.usage, name="usage"),
    path("usage.csv", console.usage_csv, name="usage_csv"),
    path("billing/", billing.billing, name="billing"),
    path("billing/alerts/new/", alerts.alert_new, name="alert_new"),
    path("billing/alerts/<row:alert_id>/remove/", alerts.alert_remove, name="alert_remove"),
    path("billing/<period:period>/", billing.statement, name="statement"),
    path("billing/<period:period>.csv", billing.statement_csv, name="statement_csv"),
    path("billing/<period:period>.csv.manifest.json", billing.statement_manifest, name="statement_manifest"),
    path("refusals/", refusals.refusals, name="refusals"),
    path("refusals.csv", refusals.refusals_csv, name="refusals_csv"),
    path("activity/", activity.activity, name="activity"),
    path("activity.csv", activity.activity_csv, name="activity_csv"),
    path("settings/", organization.organization_settings, name="organization_settings"),
    path("team/", team.team, name="team"),
    path("team/invite/", team.team_invite, name="team_invite"),
    path("team/leave/", team.team_leave, name="team_leave"),
    path("team/transfer/", team.team_transfer, name="team_transfer"),
    path("team/<row:member_id>/", team.team_member, name="team_member"),
    path("team/<row:member_id>/remove/", team.team_remove, name="team_remove"),
    path(
        "team/invitations/<invitation_id:invitation_id>/resend/",
        team.invitation_resend,
        name="invitation_resend",
    ),
    path(
        "team/invitations/<invitation_id:invitation_id>/withdraw/",
        team.invitation_withdraw,
        name="invitation_withdraw",
    ),
    *keys_urls.urlpatterns,
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", public.landing, name="landing"),
    path("brand.css", brand.brand_css, name="brand_css"),
    path("brand/logo", brand.brand_logo, name="brand_logo"),
    path("home/", public.home, name="home"),
    path("welcome/", welcome.welcome, name="welcome"),
    path("docs/", docs.docs, name="docs"),
    path("docs/authentication/", docs.docs_authentication, name="docs_authentication"),
    path("docs/scopes/", docs.docs_scopes, name="docs_scopes"),
    path("docs/limits/", docs.docs_limits, name="docs_limits"),
    path("docs/rotation/", docs.docs_rotation, name="docs_rotation"),
    path("docs/expiry/", docs.docs_expiry, name="docs_expiry"),
    path("docs/api/", docs.docs_api, name="docs_api"),
    path("docs/gateway/", docs.docs_gateway, name="docs_gateway"),
    path("docs/keys/", docs.docs_keys, name="docs_keys"),
    path("docs/meters/", docs.docs_meters, name="docs_meters"),
    path("docs/billing/", docs.docs_billing, name="docs_billing"),
    path("docs/check_statement.py", docs.docs_check_statement, name="docs_check_statement"),
    path("docs/usage/", docs.docs_usage, name="docs_usage"),
    path("terms/", terms.terms, name="terms"),
    path("terms/accept/", terms.terms_accept, name="terms_accept"),
    path("invitations/<invitation_id:invitation_id>/", team.invitation, name="invitation"),
    path(
        "invitations/<invitation_id:invitation_id>/accept/", team.invitation_accept, name="invitation_accept"
    ),
    path("leak/", leaks.leak, name="leak"),
    path("leak/thanks/", leaks.leak_told, name="leak_told"),
    path("docs/leaks/", docs.docs_leaks, name="docs_leaks"),
    path("docs/errors/", docs.docs_errors, name="docs_errors"),
    path("o/<slug:organization>/", include(_organization)),
    path("v1/", include(api_urls)),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
    path("staff/", include("portal.staff_urls")),
]

handler400 = errors.bad_request
handler500 = errors.server_error
