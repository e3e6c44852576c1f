from django.apps import AppConfig

from events.residency import set_region_source


class ContactsConfig(AppConfig):
    name = "contacts"

    def ready(self) -> None:
        from contacts.copies import register_part
        from contacts.personal import register_parts

        register_parts()
        register_part()
        set_region_source(
            "SELECT user_id, region FROM contacts_contact WHERE user_id = ANY(%s) AND region <> ''"
        )
