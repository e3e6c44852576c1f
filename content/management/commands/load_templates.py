"""`manage.py load_templates`: publish the templates that come as files."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from content.exceptions import CannotPublish
from content.services import load_templates


class Command(BaseCommand):
    help = (
        "Publish the templates in <templates.base_dir>/emails/<key>/ that the database does not "
        "have yet. What was published in the admin is left alone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--force",
            action="store_true",
            help="Also publish files that differ from what is published; drafts are kept.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        base_dir = Path(settings.BASE_DIR) / settings.EMAILAUTO.templates.base_dir
        try:
            loaded = load_templates(base_dir, force=options["force"])
        except CannotPublish as error:
            raise CommandError(str(error)) from error
        for template in loaded:
            self.stdout.write(f"published {template.key}")
        if not loaded:
            self.stdout.write("nothing to load")
