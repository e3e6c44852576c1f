"""Django and Celery with nothing of anybody's in them."""
