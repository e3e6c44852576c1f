"""Mail as it is first written in a Django project: a Celery task for each, or a script that cron
runs."""
