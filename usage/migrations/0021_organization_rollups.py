"""Roll-ups without their keys, filled from those there are."""

import django.db.models.deletion
from django.db import migrations, models

_FILL = """
INSERT INTO usage_organizationrollup
  (organization_id, hour, environment, meter, resource, outcome, booked_period, calls, quantity)
SELECT row.organization_id, row.hour, coalesce(key.environment, ''), row.meter, row.resource, row.outcome,
  row.booked_period, CAST(sum(row.calls) AS bigint), CAST(sum(row.quantity) AS bigint)
FROM usage_rollup AS row LEFT JOIN keys_key AS key ON key.id = row.key_id
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


class Migration(migrations.Migration):

    dependencies = [
        ('keys', '0014_notes'),
        ('usage', '0020_fill_statement_accounts'),
    ]

    operations = [
        migrations.CreateModel(
            name='OrganizationRollup',
            fields=[
                ('pk', models.CompositePrimaryKey('organization_id', 'hour', 'environment', 'meter', 'resource', 'outcome', 'booked_period', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('environment', models.CharField(blank=True, max_length=4)),
                ('meter', models.CharField(max_length=50)),
                ('resource', models.CharField(blank=True, max_length=128)),
                ('outcome', models.CharField(max_length=32)),
                ('booked_period', models.DateField()),
                ('calls', models.BigIntegerField()),
                ('quantity', models.BigIntegerField()),
                ('organization', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='keys.organization')),
            ],
            options={
                'indexes': [models.Index(fields=['booked_period', 'organization'], name='organization_rollup_of_period'), models.Index(fields=['hour'], name='organization_rollup_of_hour')],
            },
        ),
        migrations.RunSQL(_FILL, migrations.RunSQL.noop),
    ]
