from django.urls import path

from preferences.api import SubscriptionsView
from preferences.tracking import click, pixel
from preferences.views import (
    BrowserView,
    ConfirmView,
    PersonalDataView,
    PreferencesView,
    UnsubscribeView,
)

urlpatterns = [
    path("u/<str:token>", UnsubscribeView.as_view(), name="unsubscribe"),
    path("p/<str:token>", PreferencesView.as_view(), name="preferences"),
    path("c/<str:token>", ConfirmView.as_view(), name="confirm"),
    path("d/<str:token>", PersonalDataView.as_view(), name="personal-data"),
    path("v/<str:token>", BrowserView.as_view(), name="view-in-browser"),
    path("api/v1/subscriptions", SubscriptionsView.as_view(), name="subscriptions"),
]

tracking_urlpatterns = [
    path("c/<str:token>", click, name="click"),
    path("o/<str:token>.gif", pixel, name="pixel"),
]
