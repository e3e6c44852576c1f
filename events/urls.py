from django.urls import path

from events import openapi  # noqa: F401 - tells the schema how keys are sent
from events.api import EventsView

urlpatterns = [path("events", EventsView.as_view(), name="events")]
