from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "usage"
    verbose_name = "Usage"

    def ready(self) -> None:
        # Here, for both read models.
        from keys.lifecycle import rules
        from usage import meters

        rules.meter_exists = meters.exists
