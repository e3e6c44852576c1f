"""`python -m bench.baselines.naive.prepare`: make its table in the empty database of
DATABASE_URL."""

import os

import django


def main() -> None:
    """Without migrations."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.baselines.naive.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


if __name__ == "__main__":
    main()
