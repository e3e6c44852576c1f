"""Every URL of the project."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from emailauto.views import api_not_found

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index", permanent=False)),
    path("", include("monitoring.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("events.urls")),
    path("api/v1/", include("delivery.urls")),
    re_path(r"^api/v1/", api_not_found),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema"), name="api-docs"),
    path("u/", include("preferences.urls")),
    path("webhooks/", include("webhooks.urls")),
]
