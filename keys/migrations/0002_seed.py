"""Rows the rest relies on: the feed, the standard policy, the portal's own scopes."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

SCOPES = {
    "portal:keys": "Create, list, rotate and revoke this organization's keys by API",
    "portal:report": "Report usage for any organization's keys (staff only)",
    "portal:usage": "Read this organization's usage by API",
    "portal:verify": "Verify any organization's keys (staff only)",
}


def seed(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("keys", "Feed").objects.get_or_create(pk=1)
    apps.get_model("keys", "Policy").objects.get_or_create(
        slug="standard", defaults={"name": "Standard"}
    )
    for name, description in SCOPES.items():
        apps.get_model("keys", "Scope").objects.get_or_create(
            name=name, defaults={"description": description}
        )


class Migration(migrations.Migration):
    dependencies = [("keys", "0001_initial")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop)]
