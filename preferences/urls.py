from django.urls import path

from preferences.views import UnsubscribeView

urlpatterns = [path("<str:token>", UnsubscribeView.as_view(), name="unsubscribe")]
