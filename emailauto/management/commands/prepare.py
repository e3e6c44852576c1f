"""`manage.py prepare`: bring the database up to date and load the demo.

What `make run` calls before it starts the processes. A deployment calls `migrate`.
"""

import json
import os
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from emailauto.demo import ensure_api_key, ensure_login, load_demo
from monitoring.services import is_migrated

USERNAME = "demo"


class Command(BaseCommand):
    help = "Migrate, load the demo, and print the demo's login as JSON."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        if not is_migrated():
            call_command("migrate", interactive=False, verbosity=0)
        load_demo()
        if password := os.environ.get("EMAILAUTO_DEMO_PASSWORD"):
            ensure_login(USERNAME, password)
        if token := os.environ.get("EMAILAUTO_DEMO_API_KEY"):
            ensure_api_key(token)
        # Not the password: this output goes into a log.
        self.stdout.write(json.dumps({"admin_login": {"username": USERNAME}}))
