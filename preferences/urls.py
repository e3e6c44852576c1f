from django.urls import path

from preferences.tracking import click, pixel
from preferences.views import UnsubscribeView

urlpatterns = [path("<str:token>", UnsubscribeView.as_view(), name="unsubscribe")]

tracking_urlpatterns = [
    path("c/<str:token>", click, name="click"),
    path("o/<str:token>.gif", pixel, name="pixel"),
]
