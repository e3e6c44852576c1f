"""A batch of events and what is known about their people: loaded at once, then matched and
walked in memory, in the order the events were received."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import connection

from campaigns.matching import Listeners, Match
from campaigns.models import Enrollment, Wait
from campaigns.plan import Plan, RulePlan
from campaigns.plans import Listening, current_plan, listening_to, surviving_step
from campaigns.states import CampaignState, ExitReason, StepKind
from campaigns.walk import Facts, Walker, Writes, is_awaited
from common.clock import now
from common.ids import shortened, uuid7
from common.postgres import array, database_time
from common.rows import new_row, rows_of
from contacts.conditions import lookup
from contacts.models import Contact
from contacts.services import Identity, identify, resolve_contacts
from events.models import Event, EventType, unregistered_type
from events.states import EventState, IgnoredReason

ENTERED = "entered"
AWAITED = "awaited"
MAX_DEPTH = 5
"""Mails in a row that may answer what became of the one before."""
MAX_NOTED = 10
"""Campaigns named on an event that started none of them; of the others it says how many."""
LOOK_BACK = timedelta(days=7)
"""How far an awaited event may have overtaken the one that waits for it."""


_WAITING = """
    SELECT id FROM campaigns_wait
    WHERE contact_id = ANY(%s::bigint[]) AND event_type = ANY(%s::text[])
"""
_TYPES = "SELECT * FROM events_eventtype WHERE name = ANY(%s)"
# Entry by entry: of three lists the index would be asked for every combination.
_ENROLLED = """
    SELECT e.campaign_id, e.contact_id, e.entry_key
    FROM jsonb_array_elements(%s::jsonb) AS wanted JOIN campaigns_enrollment AS e
      ON (e.campaign_id, e.contact_id, e.entry_key)
         = ((wanted->>0)::bigint, (wanted->>1)::bigint, wanted->>2)
"""


@dataclass(slots=True)
class Case:
    """One event on its way through the batch: what it says, whose it is, what came of it."""

    event: Event
    facts: dict[str, Any]
    identity: Identity
    outcome: list[dict[str, str | int]] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    """The campaigns it starts, unless something speaks against it."""
    _contact: Contact | None = None

    @property
    def contact(self) -> Contact:
        """The person; only asked for when the identity is not empty."""
        assert self._contact is not None
        return self._contact

    @contact.setter
    def contact(self, contact: Contact) -> None:
        self._contact = contact
        self.facts["contact"] = {
            "name": contact.name,
            "email": contact.email,
            "attributes": contact.attributes,
        }

    @property
    def is_late(self) -> bool:
        """Whether it came too long after it happened to start anything. Told by when it arrived:
        one that waited here through an outage is not late."""
        limit = timedelta(hours=settings.EMAILAUTO.events.late_after_hours)
        return self.event.received_at - self.event.occurred_at > limit

    @property
    def is_loop(self) -> bool:
        """Whether it is about mail that answered mail, too often to be meant."""
        return self.event.depth > MAX_DEPTH

    def note(self, plan: Plan, result: str) -> None:
        """Remember what a campaign made of the event; shown on the event's page."""
        self.outcome.append({"campaign": plan.campaign_key, "result": result})

    def note_unmatched(self, listeners: Listeners) -> None:
        """The same of the campaigns none of whose rules is true."""
        first, more = listeners.unmatched(self.matches, limit=MAX_NOTED)
        for listening in first:
            self.note(listening.plan, IgnoredReason.NOT_MATCHED)
        if more:
            self.outcome.append({"more": more, "result": IgnoredReason.NOT_MATCHED})


@dataclass(frozen=True, slots=True)
class Parked:
    """An enrollment that waits for an event, and for which one."""

    enrollment: Enrollment
    plan: Plan
    wait: Wait
    campaign_state: str


def event_facts(event: Event) -> dict[str, Any]:
    """An event as rules, paths and templates see it."""
    return {
        "event_id": event.event_id,
        "event_type": event.type,
        "user_id": event.user_id,
        "occurred_at": event.occurred_at.isoformat(),
        "payload": event.payload,
        "metadata": event.metadata,
    }


def identified(events: Sequence[Event]) -> list[Case]:
    """Each event with the person it names, by its type's identity paths. One query."""
    names = list({event.type for event in events})
    types = {event_type.name: event_type for event_type in rows_of(EventType, _TYPES, [names])}
    cases = []
    for event in events:
        facts = event_facts(event)
        paths = types.get(event.type) or unregistered_type(event.type, event.payload)
        identity = identify(
            facts,
            user_id_paths=paths.user_id_paths,
            email_paths=paths.email_paths,
            profile_paths=paths.profile_paths,
        )
        cases.append(Case(event, facts, identity))
    return cases


def find_contacts(cases: Sequence[Case]) -> dict[int, Contact]:
    """Give each case its contact, row-locked; returns them by id."""
    contacts = resolve_contacts([case.identity for case in cases])
    for case, contact in zip(cases, contacts, strict=True):
        case.contact = contact
    return {contact.pk: contact for contact in contacts}


class SeenEvents:
    """Already processed events of the batch's people, of the types campaigns wait for."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[int, str], list[tuple[datetime, Facts]]] = defaultdict(list)

    def add(self, contact_id: int, event: Event, facts: Facts) -> None:
        self._by_key[contact_id, event.type].append((event.occurred_at, facts))

    def load(self, contact_ids: Iterable[int], types: Iterable[str], since: datetime) -> None:
        """One query, or none when no campaign of the batch waits for anything."""
        types = sorted(set(types))
        if not types:
            return
        # A producer's clock is not to be trusted with how much is read.
        since = max(since, now() - LOOK_BACK)
        rows = Event.objects.filter(
            contact_id__in=list(contact_ids), type__in=types, occurred_at__gte=since
        ).exclude(state=EventState.DEAD)
        for event in rows.exclude(reason=IgnoredReason.LATE):
            assert event.contact_id is not None
            self.add(event.contact_id, event, event_facts(event))

    def since(self, contact_id: int, event_type: str, moment: datetime) -> list[Facts]:
        """The contact's events of this type that happened at that moment or later."""
        return [f for at, f in self._by_key.get((contact_id, event_type), ()) if at >= moment]


class Batch:
    """Matches the events of a batch and collects what is to be written."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.writes = Writes()
        self._seen = SeenEvents()
        self._walker = Walker(database_time(), self.writes, self._seen.since)
        self._listeners = _load_listeners(cases)
        for case in cases:
            case.matches = self._listeners[case.event.type].matches(case.facts)
        self._parked = _load_parked(cases)
        self._enrolled = _load_enrolled(cases)
        self._load_seen(cases)

    def continue_waiting(self, case: Case) -> None:
        """Hand the event to the enrollments of its person that wait for it."""
        parked_here = self._parked.get(case.contact.pk, {})
        for parked in list(parked_here.values()):
            wait = parked.wait
            if wait.event_type != case.event.type or not is_awaited(
                case.facts, match_path=wait.match_path, match_value=wait.match_value
            ):
                continue
            del parked_here[parked.enrollment.pk]
            self._answer(parked)
            case.note(parked.plan, AWAITED)

    def enter_matching(self, case: Case) -> None:
        """Enroll the event's person in every campaign one of whose rules matches."""
        for listening, rule in case.matches:
            if listening.is_paused:
                case.note(listening.plan, IgnoredReason.CAMPAIGN_PAUSED)
            else:
                self._enter(case, listening.plan, entry_key(rule, case))
        case.note_unmatched(self._listeners[case.event.type])

    def remember(self, case: Case) -> None:
        """From here on the event counts as one that came before."""
        self._seen.add(case.contact.pk, case.event, case.facts)

    def _enter(self, case: Case, plan: Plan, key: str) -> None:
        identity = (plan.campaign_id, case.contact.pk, key)
        if identity in self._enrolled:
            case.note(plan, IgnoredReason.ALREADY_ENROLLED)
            return
        self._enrolled.add(identity)
        enrollment = new_row(
            Enrollment,
            id=uuid7(),
            campaign_id=plan.campaign_id,
            contact_id=case.contact.pk,
            entry_key=key,
            event_id=case.event.event_id,
            event_at=case.event.occurred_at,
            context=_entry_context(case),
            revision_id=plan.revision_id,
        )
        self._walker.enter(enrollment, plan)
        self._index_wait(enrollment, plan, CampaignState.LIVE)
        case.note(plan, ENTERED)

    def _answer(self, parked: Parked) -> None:
        enrollment, plan = parked.enrollment, parked.plan
        if parked.campaign_state == CampaignState.STOPPED:
            self._walker.exit(enrollment, ExitReason.STOPPED)
            return
        step = plan.step(enrollment.step_key)
        if step is None or step.kind != StepKind.WAIT_FOR_EVENT:
            self._walker.resume_at(enrollment, plan, surviving_step(enrollment, plan))
        else:
            self._walker.event_arrived(enrollment, plan, step)
        self._index_wait(enrollment, plan, parked.campaign_state)

    def _index_wait(self, enrollment: Enrollment, plan: Plan, campaign_state: str) -> None:
        wait = self.writes.waits.get(enrollment.pk)
        if wait is not None:
            parked = Parked(enrollment, plan, wait, campaign_state)
            self._parked[enrollment.contact_id][enrollment.pk] = parked

    def _load_seen(self, cases: Sequence[Case]) -> None:
        plans = {
            listening.plan.revision_id: listening.plan
            for case in cases
            for listening, _ in case.matches
        }
        moments = [case.event.occurred_at for case in cases]
        for parked in (p for group in self._parked.values() for p in group.values()):
            plans[parked.plan.revision_id] = parked.plan
            moments.append(parked.enrollment.event_at)
        types = frozenset[str]().union(*(plan.awaited_types for plan in plans.values()))
        if moments:
            self._seen.load({c.contact.pk for c in cases}, types, min(moments))


def entry_key(rule: RulePlan, case: Case) -> str:
    """What the person may enter with only once: the value at the rule's path, else the event."""
    value = lookup(case.facts, rule.entry_key_path) if rule.entry_key_path else None
    if value is None:
        return f"{case.event.source}:{case.event.event_id}"
    return shortened(f"{rule.entry_key_path}={value}", 310)


def _entry_context(case: Case) -> dict[str, Any]:
    facts = {name: value for name, value in case.facts.items() if name != "contact"}
    return facts | {"depth": case.event.depth}


def _load_parked(cases: Sequence[Case]) -> dict[int, dict[UUID, Parked]]:
    """One query where nobody waits, which is most of the time; else one more."""
    found: dict[int, dict[UUID, Parked]] = defaultdict(dict)
    contacts, types = {case.contact.pk for case in cases}, {case.event.type for case in cases}
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, [array(contacts), array(types)])
        ids = [pk for (pk,) in cursor.fetchall()]
    if not ids:
        return found
    waits = Wait.objects.filter(pk__in=ids).select_related(
        "enrollment__campaign__published", "enrollment__revision"
    )
    for wait in waits.order_by("pk"):
        enrollment = wait.enrollment
        parked = Parked(
            enrollment, current_plan(enrollment.campaign), wait, enrollment.campaign.state
        )
        found[wait.contact_id][enrollment.pk] = parked
    return found


def _load_listeners(cases: Sequence[Case]) -> dict[str, Listeners]:
    types = {case.event.type for case in cases}
    by_type: dict[str, list[Listening]] = {event_type: [] for event_type in types}
    for listening in listening_to(types):
        for event_type in types & {rule.event_type for rule in listening.plan.rules}:
            by_type[event_type].append(listening)
    return {event_type: Listeners(event_type, found) for event_type, found in by_type.items()}


def _load_enrolled(cases: Sequence[Case]) -> set[tuple[int, int, str]]:
    entries = [
        (listening.plan.campaign_id, case.contact.pk, entry_key(rule, case))
        for case in cases
        for listening, rule in case.matches
    ]
    if not entries:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_ENROLLED, [msgspec.json.encode(entries).decode()])
        return set(cursor.fetchall())
