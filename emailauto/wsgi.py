"""The WSGI application that serves the API, the admin and the recipients' pages."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")

application = get_wsgi_application()
