"""The plans to begin with; they are rows, to be changed or added to in the admin.

Daily mails per mailbox provider. Careful and standard grow by 1.4 and 1.3 a day; SES-like reaches
50,000 on day 45, SendGrid-like is five times the hourly limits SendGrid publishes.
"""

from typing import Any

from django.db import migrations

_SENDGRID_HOURLY = (
    *(20, 28, 39, 55, 77, 108, 151, 211, 295, 413, 579, 810, 1_000, 1_587, 2_222, 3_111, 4_356),
    *(6_098, 8_583, 11_953, 16_734, 23_427, 32_798, 45_917, 64_284, 89_998),
)


def _growing(first: int, factor: float, days: int) -> list[int]:
    return [_rounded(first * factor**day) for day in range(days)]


def _rounded(count: float) -> int:
    return round(count) if count < 100 else round(count / 10) * 10


PLANS = (
    ("careful", "Careful: 50 a day at first", _growing(50, 1.4, 30)),
    ("standard", "Standard: 300 a day at first", _growing(300, 1.3, 30)),
    ("ses", "Like Amazon SES: 50,000 on day 45", _growing(200, (50_000 / 200) ** (1 / 44), 45)),
    ("sendgrid", "Like SendGrid: 100 a day at first", [hour * 5 for hour in _SENDGRID_HOURLY]),
)


def add(apps: Any, _schema_editor: Any) -> None:
    plan = apps.get_model("delivery", "WarmupPlan")
    plan.objects.bulk_create(
        [plan(key=key, name=name, days=days) for key, name, days in PLANS], ignore_conflicts=True
    )


def remove(apps: Any, _schema_editor: Any) -> None:
    plan = apps.get_model("delivery", "WarmupPlan")
    plan.objects.filter(key__in=[key for key, _, _ in PLANS], warmup=None).delete()


class Migration(migrations.Migration):
    dependencies = [("delivery", "0002_queue_storage")]

    operations = [migrations.RunPython(add, remove)]
