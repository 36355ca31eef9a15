"""`makemigrations`: as django-linear-migrations has it, also where nothing is set that a portal needs."""

from django.conf import settings
from django_linear_migrations.management.commands.makemigrations import Command as LinearCommand


class Command(LinearCommand):
    # It reads models, and asks no check whether SECRET_KEY or an address would be safe.
    requires_system_checks = ()

    def handle(self, *args: object, **options: object) -> None:
        settings.VAR_DIR.mkdir(mode=0o700, exist_ok=True)  # for the embedded database, which it looks into
        super().handle(*args, **options)
