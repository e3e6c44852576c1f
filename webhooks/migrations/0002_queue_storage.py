"""A queue's table is updated several times per row: room on the page for the new versions, and a
vacuum that comes by after one row in a hundred instead of one in five."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE webhooks_receipt SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, "
            "autovacuum_analyze_scale_factor = 0.02)",
            "ALTER TABLE webhooks_receipt RESET (fillfactor, autovacuum_vacuum_scale_factor, "
            "autovacuum_analyze_scale_factor)",
        ),
        migrations.RunSQL(
            "ALTER TABLE webhooks_outgoingdelivery SET (fillfactor = 70, "
            "autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02)",
            "ALTER TABLE webhooks_outgoingdelivery RESET (fillfactor, "
            "autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor)",
        ),
    ]
