from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "webhooks"

    def ready(self) -> None:
        from webhooks import checks  # noqa: F401 - registers the system checks
        from webhooks.mailbox import checks as mailbox_checks  # noqa: F401
        from webhooks.personal import register_parts

        register_parts()
