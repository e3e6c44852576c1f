"""Other people's models in our clothes: users, groups and the clock's tasks."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django_celery_beat import admin as beat
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from common.admin.bases import ModelAdmin
from common.admin.words import ago

SCHEDULES = (IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule)

if TYPE_CHECKING:
    _UserAdmin = DjangoUserAdmin[User]
    _GroupAdmin = DjangoGroupAdmin
else:
    _UserAdmin = type("_UserAdmin", (DjangoUserAdmin, ModelAdmin), {})
    _GroupAdmin = type("_GroupAdmin", (DjangoGroupAdmin, ModelAdmin), {})

admin.site.index_title = "Overview"

for _model in (User, Group, PeriodicTask, *SCHEDULES):
    admin.site.unregister(_model)


@admin.register(User)
class UserAdmin(_UserAdmin):
    """Who may log in here, and what they may do."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_staff", "is_superuser", "is_active", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active")


@admin.register(Group)
class GroupAdmin(_GroupAdmin):
    """Sets of permissions for users."""


class _TaskSelect(UnfoldAdminSelectWidget, beat.TaskSelectWidget):  # type: ignore[misc]
    template_name = "unfold/widgets/select.html"


class TaskForm(beat.PeriodicTaskForm):  # type: ignore[misc]
    """A periodic task; its schedule and its arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["task"].widget = UnfoldAdminTextInputWidget()
        self.fields["regtask"].widget = _TaskSelect()


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(beat.PeriodicTaskAdmin, ModelAdmin[PeriodicTask]):  # type: ignore[misc]
    """What the clock starts, and when it last did."""

    form = TaskForm
    date_hierarchy = None
    list_display = ("name", "enabled", "interval", "crontab", "last_run")
    list_filter = ("enabled",)

    @admin.display(description="last run", ordering="last_run_at")
    def last_run(self, task: PeriodicTask) -> SafeString | str:
        return ago(task.last_run_at)


@admin.register(*SCHEDULES)
class ScheduleAdmin(ModelAdmin[Any]):
    """When a periodic task runs."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        # Reached from the task that uses it.
        return False
