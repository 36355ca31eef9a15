"""Asking who someone is once more before an act that makes a secret.

It alone says which views ask; how they are asked (password, code, passkey) is django-allauth's. A form
that was sent when the question came is not lost: allauth keeps it and sends it on after the answer.
"""

from collections.abc import Callable
from typing import cast

from allauth.account.decorators import reauthentication_required
from django.http import HttpResponseBase


def recent_sign_in_required[V: Callable[..., HttpResponseBase]](view: V) -> V:
    """Lets in who signed in, or answered again, within `ACCOUNT_REAUTHENTICATION_TIMEOUT` seconds."""
    return cast("V", reauthentication_required(view))
