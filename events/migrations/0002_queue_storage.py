"""A queue's table is updated several times per row: room on the page for the new versions, and a
vacuum that comes by after one row in a hundred instead of one in five."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("events", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE events_event SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, "
            "autovacuum_analyze_scale_factor = 0.02)",
            "ALTER TABLE events_event RESET (fillfactor, autovacuum_vacuum_scale_factor, "
            "autovacuum_analyze_scale_factor)",
        )
    ]
