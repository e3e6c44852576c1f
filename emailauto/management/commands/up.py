"""`manage.py up`, what `make run` calls."""

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from emailauto.embedded.exceptions import EmbeddedError
from emailauto.supervisor.exceptions import StartError
from emailauto.supervisor.stack import up


class Command(BaseCommand):
    help = "Start the servers and the application, keep them running, stop them on Ctrl-C."
    # The checks ask the database, which this command is about to start.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            up(settings.BASE_DIR)
        except (StartError, EmbeddedError) as error:
            sys.exit(str(error))
