"""The baseline's URLs."""

from django.urls import path

from bench.baselines.drf.api import BulkEventView, EventView

urlpatterns = [path("events", EventView.as_view()), path("bulk", BulkEventView.as_view())]
