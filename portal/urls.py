"""Every route of the portal. The gateway is not here: `portal.wsgi` answers it beside Django."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
]
