from django.db import migrations, models


class Migration(migrations.Migration):
    """The table of Django's database cache, as `createcachetable` makes it.

    No model stands for it, so it is in no state: the cache reads and writes it by itself.
    """

    dependencies = [
        ('portal', '0001_initial'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.CreateModel(
                    name='CacheEntry',
                    fields=[
                        ('cache_key', models.CharField(max_length=255, primary_key=True, serialize=False)),
                        ('value', models.TextField()),
                        ('expires', models.DateTimeField(db_index=True)),
                    ],
                    options={'db_table': 'portal_cache'},
                ),
            ],
        ),
    ]
