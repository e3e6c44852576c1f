"""Opens and clicks as they come in: one row each, judged and acted on later."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection

SETTLE_SECONDS = 10
"""How long a visit waits for what else happens around it."""
_MOST = 100
"""Opens, and clicks, that are kept of one message. Only the first of each counts."""
_LONGEST_AGENT = 300

# Asked now, and not when the mail was made: after a withdrawal nothing more is recorded.
_RECORD = """
    INSERT INTO delivery_visit (message_id, link_id, fingerprint, client, user_agent, is_head,
                                is_prefetch, at, due_at, actor, reason)
    SELECT m.id, v.link_id, %(fingerprint)s, %(client)s, %(agent)s, %(is_head)s, %(is_prefetch)s,
           statement_timestamp(), statement_timestamp() + %(settle)s * interval '1 second', '', ''
    FROM delivery_message AS m
    JOIN contacts_contact AS c ON c.id = m.contact_id
    CROSS JOIN (SELECT %(link)s::uuid AS link_id) AS v
    WHERE m.id = %(message)s AND m.is_tracked AND c.may_track
          AND (SELECT count(*) FROM delivery_visit AS seen
               WHERE seen.message_id = m.id AND (seen.link_id IS NULL) = (v.link_id IS NULL))
              < %(most)s
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What a visit says of itself."""

    user_agent: str
    is_head: bool
    is_prefetch: bool


def record_visit(message: UUID, link: UUID | None, request: Request, *, at: datetime) -> bool:
    """Keep an open (without a link) or a click; False when it is not for keeping: the person has
    withdrawn, the mail never left, the same was kept just now, or there are enough.

    One statement, and it locks nothing that another visit waits for.
    """
    agent = request.user_agent[:_LONGEST_AGENT].encode(errors="replace").decode().replace("\0", "")
    # Bound to the message, so that nobody can be followed from one to another by it.
    client = _digest(message.hex, agent)
    # Whatever one program does at one link in this time would be judged alike.
    moment = int(at.timestamp()) // SETTLE_SECONDS
    values = {
        "message": message,
        "link": link,
        "client": client,
        "fingerprint": _digest(client.hex(), link, moment, request.is_head, request.is_prefetch),
        "agent": agent,
        "is_head": request.is_head,
        "is_prefetch": request.is_prefetch,
        "settle": SETTLE_SECONDS,
        "most": _MOST,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RECORD, values)
        return bool(cursor.rowcount)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).digest()[:16]
