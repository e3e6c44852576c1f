"""What campaigns hold of a person: their ways through them."""

from collections.abc import Iterator
from uuid import UUID

from campaigns.models import Enrollment, StepRun, Wait
from contacts.dsar import Part, Person, Row, Sweep, in_windows, register
from contacts.spellings import naming

_FIELDS = ("created_at", "campaign__key", "entry_key", "state", "exit_reason", "step_key")


# What somebody else's way through a campaign began with.
_REDACT_OTHERS = f"""
    UPDATE campaigns_enrollment
    SET context = regexp_replace(context::text, %(pattern)s, 'erased', 'gi')::jsonb,
        event_id = regexp_replace(event_id, %(pattern)s, 'erased', 'gi')
    WHERE id > %(after)s AND id <= %(upto)s
          AND {naming("concat_ws(' ', context, event_id)")}
"""  # noqa: S608


def register_parts() -> None:
    """Tell `contacts.dsar` about all of it."""
    register(Part("campaigns", (Enrollment, StepRun, Wait), _enrollments, _erase))


def _enrollments(person: Person) -> Iterator[Row]:
    theirs = Enrollment.objects.filter(contact=person.contact_id).order_by("pk")
    yield from theirs.values(*_FIELDS, "context")


def _erase(person: Person) -> None:
    Enrollment.objects.filter(contact=person.contact_id).delete()
    sweep = Sweep("enrollments", "campaigns_enrollment", _REDACT_OTHERS, UUID(int=0))
    in_windows(person, sweep, person.spelt)
