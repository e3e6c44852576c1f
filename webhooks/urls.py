from django.urls import re_path

from webhooks.api import WebhookView

# With or without the slash: a redirect would lose the body, and the provider its patience.
urlpatterns = [re_path(r"^(?P<provider>[a-z]+)/?$", WebhookView.as_view(), name="webhook")]
