"""`python -m bench.engine campaigns COUNT OPERATOR`: put live campaigns into the database, each of
which one event in COUNT starts. `python -m bench.engine process`: let the engine work off the
inbox, and print how many events it did in how many seconds."""

import os
import sys
import time

import django
import msgspec


class Done(msgspec.Struct, frozen=True):
    """Events the engine has processed, and the seconds it took; without the first batch, which
    reads the campaigns."""

    events: int
    seconds: float


def campaigns(count: int, operator: str) -> None:
    """Campaigns on one event type: `payload.number` decides, by `eq` or by a pair of `gte` and
    `lte`, which no index helps with."""
    from campaigns.models import Campaign, Rule, Step
    from campaigns.services import publish_campaign
    from campaigns.states import StepKind
    from content.models import Template
    from delivery.models import Sender
    from delivery.states import Stream
    from events.models import EventType

    sender, template = Sender.objects.first(), Template.objects.first()
    event_type, _ = EventType.objects.get_or_create(name="bench")
    for number in range(count):
        campaign = Campaign.objects.create(
            key=f"bench-{number}", name="Bench", stream=Stream.TRANSACTIONAL, sender=sender
        )
        tests = [
            {"path": "payload.number", "op": each, "value": number}
            for each in (("eq",) if operator == "eq" else ("gte", "lte"))
        ]
        Rule.objects.create(campaign=campaign, event_type=event_type, condition={"all": tests})
        Step.objects.create(
            campaign=campaign, position=1, key="m", kind=StepKind.SEND_EMAIL, template=template
        )
        publish_campaign(campaign, by=None)


def process() -> Done:
    """Everything that is pending, batch by batch, in this process."""
    from campaigns import engine

    engine.process_batch(limit=engine.BATCH)
    started, events = time.monotonic(), 0
    while count := engine.process_batch(limit=engine.BATCH):
        events += count
    return Done(events, time.monotonic() - started)


def main(argv: list[str]) -> None:
    """What the module's docstring says."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    if argv[0] == "campaigns":
        campaigns(int(argv[1]), argv[2])
    else:
        sys.stdout.write(msgspec.json.encode(process()).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
