"""Months that were closed before this version keep the billing accounts that there are now."""

from itertools import batched

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

_FIELDS = (
    *('name', 'email', 'address', 'tax_id'),
    *('stripe_customer', 'lago_subscription', 'openmeter_subject'),
)


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    lines = apps.get_model('usage', 'StatementLine')
    accounts = apps.get_model('usage', 'StatementAccount')
    organizations = apps.get_model('keys', 'Organization')
    for closed in apps.get_model('usage', 'ClosedPeriod').objects.exclude(closed_at=None):
        billed = organizations.objects.filter(slug__in=lines.objects.filter(closed=closed).values('organization'))
        rows = billed.values_list('slug', 'name', *(f'billing_account__{field}' for field in _FIELDS))
        for some in batched(rows.iterator(chunk_size=2000), 2000):
            accounts.objects.bulk_create(
                [
                    accounts(
                        closed=closed,
                        organization=slug,
                        **{field: value or '' for field, value in zip(_FIELDS, (found[0] or name, *found[1:]))},
                    )
                    for slug, name, *found in some
                ],
                ignore_conflicts=True,
            )


class Migration(migrations.Migration):

    dependencies = [
        ('keys', '0011_last_four'),
        ('usage', '0019_statement_accounts'),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
