"""Every URL of the project."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index", permanent=False)),
    path("", include("monitoring.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("events.urls")),
    path("api/v1/", include("delivery.urls")),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema"), name="api-docs"),
    path("u/", include("preferences.urls")),
    path("webhooks/", include("webhooks.urls")),
]
