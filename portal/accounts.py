"""Sign-up and sign-in decisions of our own; django-allauth does the rest."""

from allauth.account.adapter import DefaultAccountAdapter


class AccountAdapter(DefaultAccountAdapter):
    pass
