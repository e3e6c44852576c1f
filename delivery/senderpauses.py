"""Sending domains that a provider does not accept: not verified there, or not any more.

That is about one sender, so it counts nothing against the provider: other senders' mail goes on.
The domain's own waits, or takes a stand-in's way, and is offered again once the pause is over, so
that it leaves by itself soon after the domain is verified. An answer costs one call per pause.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db import connection
from django.db.models import F
from django.db.models.functions import Extract, Now

from delivery.models import Provider, SenderPause
from delivery.turns import Handed
from delivery.verdicts import Blame

Key = tuple[int, str]
"""Provider's id and sending domain."""


@dataclass(frozen=True, slots=True)
class Barred:
    """For how many seconds, and what the provider said."""

    seconds: float
    reason: str


_WRITE = """
    INSERT INTO delivery_senderpause AS p (provider_id, domain, until, reason)
    SELECT n.provider_id, n.domain, statement_timestamp() + n.wait * interval '1 second', n.reason
    FROM unnest(%s::bigint[], %s::text[], %s::float8[], %s::text[])
         AS n (provider_id, domain, wait, reason)
    ON CONFLICT (provider_id, domain)
    DO UPDATE SET until = GREATEST(p.until, excluded.until), reason = excluded.reason
"""


def note(handed: Iterable[Handed]) -> bool:
    """Remember which senders were refused; True if any was. No query otherwise."""
    refused: dict[Key, tuple[float, str]] = {}
    for item in handed:
        if item.verdict.blame == Blame.SENDER:
            outbound, wait = item.departed.outbound, item.verdict.retry_after or 0.0
            refused[outbound.provider.pk, outbound.sender.domain] = (wait, item.verdict.detail)
    if not refused:
        return False
    # In one order, or two workers wait for each other.
    rows = [(*key, wait, reason[:300]) for key, (wait, reason) in sorted(refused.items())]
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, [list(column) for column in zip(*rows, strict=True)])
    return True


def load_pauses() -> Mapping[Key, Barred]:
    """The senders that are not to be tried now. One query."""
    pauses = SenderPause.objects.filter(until__gt=Now())
    rows = pauses.annotate(seconds=Extract(F("until") - Now(), "epoch"))
    return {
        (pause.provider_id, pause.domain): Barred(float(pause.seconds), pause.reason)
        for pause in rows
    }


def forget(provider: Provider) -> None:
    """What an operator says once a domain is verified: try it again at once."""
    SenderPause.objects.filter(provider=provider).delete()
