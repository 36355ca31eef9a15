from django.db import migrations, models

from keys.online import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("usage", "0021_organization_rollups"),
    ]

    operations = [
        AddIndexOnline(
            model_name="signal",
            index=models.Index(
                fields=["key", "points", "dismissed_at", "dismissed_until"],
                name="signal_raised",
                condition=models.Q(cleared_at=None),
            ),
        ),
        AddIndexOnline(
            model_name="spool",
            index=models.Index(
                fields=["retired_at"], name="spool_retired", condition=models.Q(retired_at__isnull=False)
            ),
        ),
        AddIndexOnline(
            model_name="subscription",
            index=models.Index(fields=["start"], name="subscription_start"),
        ),
    ]
