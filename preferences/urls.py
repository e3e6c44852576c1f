from django.urls import path

from preferences.views import BrowserView, PreferencesView, UnsubscribeView

urlpatterns = [
    path("u/<str:token>", UnsubscribeView.as_view(), name="unsubscribe"),
    path("p/<str:token>", PreferencesView.as_view(), name="preferences"),
    path("v/<str:token>", BrowserView.as_view(), name="view-in-browser"),
]
