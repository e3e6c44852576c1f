"""`manage.py up`, what `make run` does."""

from typing import Any

from django.core.management.base import BaseCommand

from emailauto.supervisor.__main__ import main


class Command(BaseCommand):
    help = "Start the servers and the application, keep them running, stop them on Ctrl-C."
    # The checks ask the database, which this command is about to start.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        main()
