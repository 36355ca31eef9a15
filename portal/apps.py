"""The project's own app: the user, the pages that show keys and usage together, the admin site."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = "Portal"
    default = True

    def ready(self) -> None:
        from portal import brand_checks, checks, terms_checks  # noqa: F401  register the system checks


class AdminConfig(admin_apps.AdminConfig):
    """Django's admin on a site of ours, so that it signs in through the portal."""

    default = False
    default_site = "portal.admin_site.AdminSite"
