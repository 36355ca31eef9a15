"""The customers' pages about keys, below `/o/<organization>/`. Pages that also show usage are portal's."""

import re

from django.urls import URLPattern, path, register_converter

from keys import views


class KeyIdConverter:
    """A key's public id. Anything else is no page at all, before any query sees it."""

    regex = r"key_[0-9A-Za-z]{16}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        if re.fullmatch(self.regex, value) is None:
            raise ValueError("not a key's id")
        return value


register_converter(KeyIdConverter, "key_id")

urlpatterns: list[URLPattern] = [
    path("keys/new/", views.key_new, name="key_new"),
    path("keys/canary/", views.key_canary, name="key_canary"),
    path("keys/<key_id:key_id>/take-up/", views.key_take_up, name="key_take_up"),
    path("keys/<key_id:key_id>/edit/", views.key_edit, name="key_edit"),
    path("keys/<key_id:key_id>/ask/", views.key_ask, name="key_ask"),
    path("keys/<key_id:key_id>/rotate/", views.key_rotate, name="key_rotate"),
    path("keys/<key_id:key_id>/disable/", views.key_disable, name="key_disable"),
    path("keys/<key_id:key_id>/enable/", views.key_enable, name="key_enable"),
    path("keys/<key_id:key_id>/end-overlap/", views.key_end_overlap, name="key_end_overlap"),
    path("keys/<key_id:key_id>/extend-overlap/", views.key_extend_overlap, name="key_extend_overlap"),
    path("keys/<key_id:key_id>/roll-back/", views.key_roll_back, name="key_roll_back"),
]
