"""Every URL of the project."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerView

from emailauto.views import SchemaView, api_not_found
from events.api import CloudEventsView, SegmentView
from preferences.urls import tracking_urlpatterns

admin.autodiscover()

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index", permanent=False)),
    path("", include("monitoring.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("events.urls")),
    path("api/v1/", include("delivery.urls")),
    path("", include("preferences.urls")),
    path("segment/v1/<str:path>", SegmentView.as_view(), name="segment"),
    re_path(r"^(?:api|segment)/v1/", api_not_found),
    path("cloudevents", CloudEventsView.as_view(), name="cloudevents"),
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema"), name="api-docs"),
    path("t/", include(tracking_urlpatterns)),
    path("webhooks/", include("webhooks.urls")),
]
