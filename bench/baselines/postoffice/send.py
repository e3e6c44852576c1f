"""`python -m bench.baselines.postoffice.send`: what `manage.py send_queued_mail --processes 2
--log-level 0` does. Prints how many seconds the sending took, without the start of the process."""

import os
import sys
import time

import django

_PROCESSES = 2


def main() -> None:
    """Send what is queued until nothing is."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.baselines.postoffice.settings"
    django.setup()
    from post_office.lockfile import default_lockfile
    from post_office.mail import send_queued_mail_until_done

    started = time.monotonic()
    send_queued_mail_until_done(default_lockfile, _PROCESSES, 0)
    sys.stdout.write(f"{time.monotonic() - started}\n")


if __name__ == "__main__":
    main()
