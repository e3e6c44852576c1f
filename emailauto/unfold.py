"""How the admin looks (django-unfold) and the order of its sidebar: that of a marketer's work."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse, reverse_lazy

Permission = Callable[[HttpRequest], bool]


def _may(permission: str) -> Permission:
    return lambda request: request.user.has_perm(permission)


def _item(title: str, icon: str, app: str, model: str, **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_changelist"),
        "permission": _may(f"{app}.view_{model}"),
        **more,
    }


def _tab(title: str, app: str, model: str, **filters: str) -> dict[str, Any]:
    """A filter of a list as a tab; the one without filters is active when none of theirs is."""
    page = f"admin:{app}_{model}_changelist"
    wanted = {f"{name}__exact": value for name, value in filters.items()}

    def is_active(request: HttpRequest) -> bool:
        given = {name: request.GET.get(name) for name in ("state__exact",) if name in request.GET}
        return given == wanted

    return {
        "title": title,
        "link": lambda _request: (
            f"{reverse(page)}?{urlencode(wanted)}" if wanted else reverse(page)
        ),
        "active": is_active,
        "permission": _may(f"{app}.view_{model}"),
    }


def _static(path: str) -> Callable[[HttpRequest], str]:
    # Asked for per request: with hashed file names the manifest exists only after collectstatic.
    return lambda _request: static(path)


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "emailauto",
    "SITE_HEADER": "emailauto",
    "SITE_SUBHEADER": "Events in, e-mail out",
    "SITE_SYMBOL": "forward_to_inbox",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": _static("emailauto/favicon.svg"),
        }
    ],
    "STYLES": [_static("emailauto/admin.css")],
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "monitoring.dashboard.dashboard",
    "BORDER_RADIUS": "8px",
    # White on primary-600 has a contrast of 5.5 : 1.
    "COLORS": {
        "primary": {
            "50": "#f0fdfa",
            "100": "#ccfbf1",
            "200": "#99f6e4",
            "300": "#5eead4",
            "400": "#2dd4bf",
            "500": "#14b8a6",
            "600": "#0f766e",
            "700": "#115e59",
            "800": "#134e4a",
            "900": "#0f3f3c",
            "950": "#042f2e",
        }
    },
    "TABS": [
        {
            "models": ["delivery.message"],
            "items": [
                _tab("All", "delivery", "message"),
                _tab("Sent", "delivery", "message", state="sent"),
                _tab("Waiting", "delivery", "message", state="queued"),
                _tab("Retrying", "delivery", "message", state="retry"),
                _tab("Held", "delivery", "message", state="held"),
                _tab("Unknown", "delivery", "message", state="unknown"),
                _tab("Skipped", "delivery", "message", state="skipped"),
            ],
        },
        {
            "models": ["events.event"],
            "items": [
                _tab("All", "events", "event"),
                _tab("Pending", "events", "event", state="pending"),
                _tab("Processed", "events", "event", state="processed"),
                _tab("Ignored", "events", "event", state="ignored"),
                _tab("Dead", "events", "event", state="dead"),
            ],
        },
        {
            "models": ["events.rejection"],
            "items": [
                _tab("All", "events", "rejection"),
                _tab("Open", "events", "rejection", state="open"),
                _tab("Replayed", "events", "rejection", state="replayed"),
                _tab("Discarded", "events", "rejection", state="discarded"),
            ],
        },
    ],
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Marketing",
                "items": [
                    _item("Campaigns", "campaign", "campaigns", "campaign"),
                    _item("Templates", "article", "content", "template"),
                    _item("Topics", "sell", "contacts", "topic"),
                    _item("Contacts", "group", "contacts", "contact"),
                ],
            },
            {
                "title": "Mail",
                "separator": True,
                "items": [
                    _item("Messages", "mail", "delivery", "message"),
                    _item(
                        "Dead letters",
                        "unsubscribe",
                        "delivery",
                        "deadletter",
                        badge="monitoring.dashboard.dead_letters",
                        badge_variant="danger",
                        badge_style="solid",
                    ),
                    _item("Sandbox inbox", "inbox", "delivery", "sandboxmail"),
                    _item("Suppressions", "block", "suppression", "suppression"),
                    _item("Erasures", "person_off", "contacts", "erasure"),
                ],
            },
            {
                "title": "Data",
                "separator": True,
                "items": [
                    _item("Events", "bolt", "events", "event"),
                    _item("Refused events", "do_not_disturb_on", "events", "rejection"),
                    _item("Event types", "category", "events", "eventtype"),
                    _item("API keys", "key", "events", "apikey"),
                    _item("Receipts", "receipt_long", "webhooks", "receipt"),
                    _item("Outgoing webhooks", "webhook", "webhooks", "outgoingendpoint"),
                    _item("Outgoing deliveries", "outbox", "webhooks", "outgoingdelivery"),
                    _item("Polls", "sync", "webhooks", "poll"),
                ],
            },
            {
                "title": "Set-up",
                "separator": True,
                "items": [
                    _item("Providers", "dns", "delivery", "provider"),
                    _item("Warm-ups", "trending_up", "delivery", "warmup"),
                    _item("Senders", "alternate_email", "delivery", "sender"),
                    _item("Switches", "power_settings_new", "delivery", "switch"),
                    _item("Periodic tasks", "schedule", "django_celery_beat", "periodictask"),
                    _item("Users", "manage_accounts", "auth", "user"),
                ],
            },
        ],
    },
}
