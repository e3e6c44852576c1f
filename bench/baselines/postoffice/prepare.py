"""`python -m bench.baselines.postoffice.prepare`: make its tables in the empty database of
DATABASE_URL."""

import os

import django


def main() -> None:
    """Migrate."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.baselines.postoffice.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


if __name__ == "__main__":
    main()
