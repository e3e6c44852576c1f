from django.urls import re_path

from webhooks.api import WebhookView

# With or without the slash: a redirect would lose the body, and the provider its patience.
# Behind the provider may stand what nobody can guess.
urlpatterns = [
    re_path(
        r"^(?P<provider>[a-z]+)(?:/(?P<token>[0-9a-f]{40}))?/?$",
        WebhookView.as_view(),
        name="webhook",
    )
]
