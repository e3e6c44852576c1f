"""The statements behind `delivery.transitions`."""

# What feedback has told already: it has come to somebody; or the provider took it and did not send
# it. In either case the provider has the message, whatever the worker knows.
_ARRIVED = (
    "LEAST(m.delivered_at, m.opened_at, m.clicked_at, m.bounced_at, m.complained_at) IS NOT NULL"
)
REJECTED = f"(m.rejected_at IS NOT NULL AND NOT {_ARRIVED})"
_PROVEN = f"(m.esp_id <> '' OR m.rejected_at IS NOT NULL OR {_ARRIVED})"
_PROVEN_STATE = f"CASE WHEN {REJECTED} THEN 'failed' ELSE 'sent' END"
_PROVEN_REASON = f"CASE WHEN {REJECTED} THEN 'refused' ELSE '' END"
_PROVEN_SENT_AT = (
    f"CASE WHEN {REJECTED} THEN NULL ELSE coalesce(m.sent_at, statement_timestamp()) END"
)

# An earlier try was in doubt, and it was sent again because twice was preferred to not at all
# (`on_unknown`): how the last try ended says nothing of that one.
_IN_DOUBT = """(m.failures > 0 AND EXISTS (
    SELECT FROM delivery_attempt AS a WHERE a.message_id = m.id AND a.verdict = 'unknown'))"""

# Proof may have come while it waited: then it is sent, and nobody's to hand over.
_CLAIM = f"""
    UPDATE delivery_message AS m
    SET state = CASE WHEN {_PROVEN} THEN {_PROVEN_STATE} ELSE 'claimed' END,
        reason = CASE WHEN {_PROVEN} THEN {_PROVEN_REASON} ELSE m.reason END,
        sent_at = CASE WHEN {_PROVEN} THEN {_PROVEN_SENT_AT} ELSE m.sent_at END,
        lease_owner = CASE WHEN {_PROVEN} THEN '' ELSE %(owner)s END,
        lease_until = CASE WHEN {_PROVEN} THEN NULL
                           ELSE statement_timestamp() + %(lease)s * interval '1 second' END
    WHERE id = ANY (ARRAY(
        SELECT id FROM delivery_message
        WHERE state IN ('queued', 'retry') AND stream = %(stream)s
              AND due_at <= statement_timestamp() AND {{crashes}}
        ORDER BY due_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING m.*, coalesce(m.replay_until <= statement_timestamp(), false) AS is_too_late
"""  # noqa: S608 - a constant of this module

# The condition stands in the text, or the index of the few that crashed could not serve.
CLAIM_FRESH = _CLAIM.format(crashes="crashes = 0")
CLAIM_CRASHED = _CLAIM.format(crashes="crashes > 0")

# Rows are locked in the order of their ids throughout, as feedback does: two that each hold what
# the other waits for would be one too many.
_MINE = """
    WITH mine AS (
        SELECT id FROM delivery_message
        WHERE id = ANY(%s::uuid[]) AND state = ANY(%s::text[]) AND lease_owner = %s
        ORDER BY id FOR NO KEY UPDATE)
"""

REFUSE = f"""
    {_MINE}
    UPDATE delivery_message AS m
    SET state = r.state, reason = r.reason, detail = r.detail,
        mailboxes = coalesce(nullif(r.mailboxes, ''), m.mailboxes),
        lease_owner = '', lease_until = NULL,
        due_at = CASE WHEN r.delay > 0 THEN statement_timestamp() + r.delay * interval '1 second'
                      ELSE m.due_at END
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::text[])
         AS r (id, state, reason, detail, delay, mailboxes) JOIN mine USING (id)
    WHERE m.id = r.id
    RETURNING m.id
"""  # noqa: S608 - a constant of this module

# Back to the queue, unless it turns out that the provider has it.
_QUEUED = f"""
    SET state = CASE WHEN {_PROVEN} THEN {_PROVEN_STATE} ELSE 'queued' END,
        reason = CASE WHEN {_PROVEN} THEN {_PROVEN_REASON} ELSE m.reason END,
        sent_at = CASE WHEN {_PROVEN} THEN {_PROVEN_SENT_AT} ELSE m.sent_at END,
        lease_owner = '', lease_until = NULL
"""

PUT_OFF = f"""
    {_MINE}
    UPDATE delivery_message AS m
    {_QUEUED}, due_at = statement_timestamp() + p.delay * interval '1 second'
    FROM unnest(%s::uuid[], %s::float8[]) AS p (id, delay) JOIN mine USING (id)
    WHERE m.id = p.id
    RETURNING m.id
"""

DISPATCH = f"""
    {_MINE}
    UPDATE delivery_message AS m
    SET state = 'dispatching', attempts = m.attempts + 1, handover_id = %s, reason = '',
        detail = '', provider_id = d.provider_id, route = d.route, email = d.email,
        email_normalized = d.email_normalized, wire_hash = d.wire_hash, is_tracked = d.is_tracked,
        sending_domain = d.sending_domain, mailboxes = d.mailboxes,
        handed_over_at = statement_timestamp(),
        lease_until = statement_timestamp() + %s * interval '1 second'
    FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[],
                %s::text[], %s::bytea[], %s::bool[])
         AS d (id, provider_id, route, email, email_normalized, sending_domain, mailboxes,
               wire_hash, is_tracked) JOIN mine USING (id)
    WHERE m.id = d.id AND m.lease_until > statement_timestamp()
    RETURNING m.id, m.attempts
"""  # noqa: S608 - a constant of this module

# What a receiver says again is acted on again where it is about another address or ends it: the
# one before may have been lifted. That a mail is put off once more is only counted.
#
# Also from `unknown`: if recovery gave the message up while its worker was only slow, that
# worker's outcome is the proof that was missing. The attempt number is what makes it the same.
SETTLE = f"""
    WITH outcome AS (
        SELECT * FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[],
                             %s::float8[], %s::bool[], %s::text[], %s::float8[], %s::text[],
                             %s::text[], %s::bool[], %s::bytea[])
             AS s (id, attempt, state, reason, detail, esp_id, delay, failed, verdict, replayable,
                   bounce, request, never_begun, address_hash)
    ), locked AS (
        SELECT m.id FROM delivery_message AS m JOIN outcome AS s USING (id)
        WHERE m.attempts = s.attempt AND m.state IN ('dispatching', 'unknown')
        ORDER BY m.id FOR NO KEY UPDATE OF m
    ), moved AS (
        UPDATE delivery_message AS m
        SET state = CASE WHEN {_PROVEN} THEN {_PROVEN_STATE}
                         WHEN s.state IN ('failed', 'dead') AND {_IN_DOUBT} THEN 'unknown'
                         ELSE s.state END,
            reason = CASE WHEN {_PROVEN} THEN {_PROVEN_REASON}
                          WHEN s.state IN ('failed', 'dead') AND {_IN_DOUBT}
                          THEN 'outcome_unknown' ELSE s.reason END,
            detail = s.detail,
            esp_id = CASE WHEN s.esp_id = '' THEN m.esp_id ELSE s.esp_id END,
            failures = m.failures + s.failed::int,
            replay_until = CASE
                WHEN s.replayable > 0 THEN coalesce(
                    m.replay_until, m.handed_over_at + s.replayable * interval '1 second')
                WHEN s.never_begun THEN m.replay_until END,
            due_at = statement_timestamp() + s.delay * interval '1 second',
            sent_at = CASE WHEN {REJECTED} THEN NULL WHEN s.state = 'sent' OR {_PROVEN}
                           THEN statement_timestamp() ELSE m.sent_at END,
            lease_owner = '', lease_until = NULL
        FROM outcome AS s JOIN locked USING (id)
        WHERE m.id = s.id
        RETURNING m.id, m.email, m.email_normalized
    ), logged AS (
        INSERT INTO delivery_attempt
            (message_id, number, provider_id, verdict, detail, request, address_hash)
        SELECT s.id, s.attempt, m.provider_id, s.verdict, s.detail, s.request, s.address_hash
        FROM outcome AS s JOIN delivery_message AS m ON m.id = s.id
        WHERE m.provider_id IS NOT NULL AND s.verdict <> ''
        ON CONFLICT DO NOTHING
    ), answered AS (
        INSERT INTO delivery_bounce AS b
            (message_id, bounce_class, detail, source, is_applied, email, email_normalized)
        SELECT s.id, s.bounce, s.detail, 'smtp', false, moved.email, moved.email_normalized
        FROM outcome AS s JOIN moved USING (id) WHERE s.bounce <> '' ORDER BY s.id
        ON CONFLICT (message_id, bounce_class) DO UPDATE SET
            last_at = statement_timestamp(), detail = excluded.detail, email = excluded.email,
            email_normalized = excluded.email_normalized, retry_at = NULL,
            is_applied = b.is_applied AND excluded.bounce_class NOT IN ('hard', 'owner_changed')
                         AND b.email_normalized = excluded.email_normalized
    )
    SELECT id FROM moved
"""  # noqa: S608 - a constant of this module

MAX_CRASHES = 3
"""A message on which so many workers died, or batches failed, is given up."""

# In doubt it is not ours to call dead.
_BURIED = f"""
    SET state = CASE WHEN {_PROVEN} THEN {_PROVEN_STATE}
                     WHEN m.crashes + 1 < {MAX_CRASHES} THEN 'queued'
                     WHEN m.replay_until IS NULL AND NOT {_IN_DOUBT} THEN 'dead'
                     ELSE 'unknown' END,
        reason = CASE WHEN {_PROVEN} THEN {_PROVEN_REASON}
                      WHEN m.crashes + 1 < {MAX_CRASHES} THEN m.reason
                      WHEN m.replay_until IS NULL AND NOT {_IN_DOUBT} THEN 'crashed'
                      ELSE 'outcome_unknown' END,
        sent_at = CASE WHEN {_PROVEN} THEN {_PROVEN_SENT_AT} ELSE m.sent_at END,
        crashes = m.crashes + 1, lease_owner = '', lease_until = NULL
"""

GIVE_BACK_FAILED = f"""
    {_MINE}
    UPDATE delivery_message AS m {_BURIED} FROM mine WHERE m.id = mine.id RETURNING m.id
"""

RECOVER_CLAIMED = f"""
    WITH mine AS (
        SELECT id FROM delivery_message
        WHERE state = 'claimed' AND lease_until < statement_timestamp()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE delivery_message AS m {_BURIED} FROM mine WHERE m.id = mine.id RETURNING m.state
"""  # noqa: S608 - a constant of this module

RELEASE = f"""
    {_MINE}
    UPDATE delivery_message AS m {_QUEUED} FROM mine WHERE m.id = mine.id RETURNING m.id
"""
