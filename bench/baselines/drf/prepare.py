"""`python -m bench.baselines.drf.prepare TOKEN`: make the baseline's tables and a token."""

import os
import sys

import django


def main(token: str) -> None:
    """The database of DATABASE_URL, which is empty, gets what the view needs."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.baselines.drf.settings"
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from rest_framework.authtoken.models import Token

    call_command("migrate", run_syncdb=True, verbosity=0)
    Token.objects.create(key=token, user=User.objects.create(username="producer"))


if __name__ == "__main__":
    main(sys.argv[1])
