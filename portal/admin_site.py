"""Django's admin, signed in through the portal's own accounts."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin


class AdminSite(admin.AdminSite):
    site_header = "Latchkey staff"


AdminSite.login = secure_admin_login(AdminSite.login)  # type: ignore[method-assign]  # allauth's documented way
