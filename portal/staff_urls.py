"""The staff's pages, below /staff/."""

from django.urls import URLPattern, path

from portal import staff, staff_policies, staff_trials, staff_visits

urlpatterns: list[URLPattern] = [
    path("", staff.overview, name="staff"),
    path("usage/", staff.usage, name="staff_usage"),
    path("refusals/", staff.refusals, name="staff_refusals"),
    path("leaks/", staff.leaks, name="staff_leaks"),
    path("leaks/<key_id:key_id>/", staff.key_leaks, name="staff_key_leaks"),
    path("billing/", staff.billing, name="staff_billing"),
    path("attention/", staff.attention, name="staff_attention"),
    path("find-key/", staff.find_key, name="staff_find_key"),
    path("requests/", staff_policies.requests, name="staff_requests"),
    path("requests/<row:request_id>/", staff_policies.decide, name="staff_decide"),
    path("outside-policy/", staff_policies.outside, name="staff_outside"),
    path("trials/", staff_trials.staff_trials, name="staff_trials"),
    path("trials/<row:trial_id>/", staff_trials.staff_trial, name="staff_trial"),
    path("visit/<slug:organization>/", staff_visits.visit, name="staff_visit"),
    path("leave/", staff_visits.leave, name="staff_leave"),
]
