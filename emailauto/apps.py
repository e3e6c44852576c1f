from django.apps import AppConfig


class EmailautoConfig(AppConfig):
    name = "emailauto"

    def ready(self) -> None:
        from emailauto import checks  # noqa: F401 - registers the system checks
