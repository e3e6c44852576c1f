"""Register the events about our own mail, so that rules can choose them."""

from django.db import migrations

DESCRIPTIONS = {
    "email.delivered": "A mail arrived. Recorded when events.about_mail says so.",
    "email.opened": "Somebody opened a mail, as far as that can be told.",
    "email.clicked": "Somebody followed a link in a mail.",
    "email.bounced": "A mail came back; payload.class and payload.is_permanent say why.",
    "email.complained": "Somebody called a mail spam.",
    "email.unsubscribed": "Somebody unsubscribed by a link in a mail.",
}


def register(apps, schema_editor):
    EventType = apps.get_model("events", "EventType")
    for name, description in DESCRIPTIONS.items():
        EventType.objects.get_or_create(
            name=name, defaults={"description": description, "profile_paths": {}}
        )


def unregister(apps, schema_editor):
    """Leave what a rule has chosen."""


class Migration(migrations.Migration):
    dependencies = [
        ("webhooks", "0002_queue_storage"),
        ("events", "0001_initial"),
    ]

    operations = [migrations.RunPython(register, unregister, elidable=False)]
