from django.apps import AppConfig

from events.residency import set_region_source


class ContactsConfig(AppConfig):
    name = "contacts"

    def ready(self) -> None:
        set_region_source(
            "SELECT user_id, region FROM contacts_contact WHERE user_id = ANY(%s) AND region <> ''"
        )
