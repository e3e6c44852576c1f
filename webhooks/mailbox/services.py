"""Fetching what came into the bounce mailbox."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from django.conf import settings
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from webhooks.mailbox.account import Account, MailboxError, account_of, folder_after
from webhooks.mailbox.imap import Mailbox, Refused, open_mailbox
from webhooks.mailbox.reports import NAME
from webhooks.models import BounceMailbox
from webhooks.reading import hash_id
from webhooks.receipts import NewReceipt, keep_receipts
from webhooks.turns import Lease, turn

BATCH = 20
MOST = 1_000
"""Mails that one poll keeps; those that are left come with the next one."""

TURN = "bounce-mailbox"
# Longer than a session and its connecting: whoever dies is waited for no longer.
_TURN_SECONDS = 120.0
# Of what is left of a session once the mailbox is open: for fetching, and until the last batch is
# put away. The rest is for saying goodbye.
_FETCHING, _PUTTING_AWAY = 0.5, 0.85
# A server that refuses three batches refuses all of them, most likely.
_MOST_REFUSALS = 3

_CONTENT_TYPE = "message/rfc822"


def poll() -> int | None:
    """Keep the mails in the bounce mailbox as receipts and put them away there; returns how many
    are newly kept, or None while another worker is at it.

    First everything is kept, then it is put away: a mailbox that lets nobody move a mail holds up
    none. What is kept and could not be put away is remembered by its UID and not fetched again. Who
    dies in between finds it again and keeps nothing twice: a receipt's id is the hash of the mail,
    which outlasts a mailbox that is moved to another server. Raises `MailboxError`.
    """
    account = account_of(settings.BOUNCE_MAILBOX_URL)
    folder = folder_after(settings.BOUNCE_MAILBOX_AFTER, account)
    with turn(TURN, seconds=_TURN_SECONDS) as lease:
        return None if lease is None else _poll(account, folder, lease)


def _poll(account: Account, folder: str | None, lease: Lease) -> int:
    key = digest_of(account)
    memory = BounceMailbox.objects.filter(pk=key).first() or BounceMailbox(account=key)
    try:
        with open_mailbox(account) as mailbox:
            count = _read(mailbox, folder, memory)
    except MailboxError as error:
        memory.failures += 1
        memory.last_error = str(error)[:200]
        _remember(memory, lease)
        raise
    memory.failures, memory.last_error, memory.last_ok_at = 0, "", Now()
    _remember(memory, lease)
    return count


def digest_of(account: Account) -> str:
    """The key under which a folder is remembered, which does not tell whose it is."""
    where = "\n".join([account.host, str(account.port), account.user, account.folder])
    return salted_hmac("webhooks.mailbox", where, algorithm="sha256").hexdigest()


def _read(mailbox: Mailbox, folder: str | None, memory: BounceMailbox) -> int:
    opened, left = time.monotonic(), mailbox.seconds_left()
    count = 0
    refusal: Refused | None = None
    new, put_off = _new_uids(mailbox, memory)
    # Those at which sessions broke off come when all others are kept and put away.
    for uids in (new, put_off) if put_off else (new,):
        count += _keep_all(mailbox, uids, memory, end=opened + _FETCHING * left)
        refusal = _put_away(mailbox, folder, memory, end=opened + _PUTTING_AWAY * left) or refusal
    if refusal is not None:
        raise refusal
    return count


def _new_uids(mailbox: Mailbox, memory: BounceMailbox) -> tuple[Sequence[int], Sequence[int]]:
    """Up to `MOST` mails that are not known here, oldest first, and as many of which no session
    got hold. What is gone from the folder is forgotten."""
    if mailbox.uid_validity is None or mailbox.uid_validity != memory.uid_validity:
        memory.uid_validity, memory.kept, memory.put_off = mailbox.uid_validity, [], []
    known = {*memory.kept, *memory.put_off}
    seen: set[int] = set()

    def new() -> Iterator[int]:
        for uid in mailbox.uids():
            seen.add(uid)
            if uid not in known:
                yield uid

    found = list(islice(new(), MOST))
    if len(found) < MOST:  # every mail was seen
        memory.kept = [uid for uid in memory.kept if uid in seen]
        memory.put_off = [uid for uid in memory.put_off if uid in seen]
    return found, memory.put_off[:MOST]


def _keep_all(mailbox: Mailbox, uids: Sequence[int], memory: BounceMailbox, *, end: float) -> int:
    """Keep what can be fetched until `end`, also when the connection breaks off at one of them."""
    count = 0
    batch: dict[int, bytes] = {}
    for uid in uids:
        if time.monotonic() > end:
            break
        # Whatever happens to it: only once it is kept it is an ordinary one again.
        memory.put_off = [*(other for other in memory.put_off if other != uid), uid]
        try:
            mail = mailbox.fetch(uid)
        except MailboxError:
            _keep(batch, memory)
            raise
        if mail is not None:
            memory.put_off.remove(uid)
            batch[uid] = mail
        if len(batch) == BATCH:
            count += _keep(batch, memory)
            batch = {}
    return count + _keep(batch, memory)


def _keep(mails: Mapping[int, bytes], memory: BounceMailbox) -> int:
    if not mails:
        return 0
    keep_receipts(
        [NewReceipt(NAME, hash_id("mail", mail), mail, _CONTENT_TYPE) for mail in mails.values()]
    )
    memory.kept.extend(mails)
    return len(mails)


def _put_away(
    mailbox: Mailbox, folder: str | None, memory: BounceMailbox, *, end: float
) -> Refused | None:
    """Put away what is kept until `end`, newest first, because the others may have been refused
    before; returns a refusal, which does not keep the other batches from being tried."""
    waiting, gone = memory.kept[::-1], set[int]()
    refusals: list[Refused] = []
    try:
        for start in range(0, len(waiting), BATCH):
            if time.monotonic() > end or len(refusals) == _MOST_REFUSALS:
                break
            batch = waiting[start : start + BATCH]
            try:
                mailbox.put_away(batch, folder)
                gone.update(batch)
            except Refused as refusal:
                refusals.append(refusal)
    finally:
        memory.kept = [uid for uid in memory.kept if uid not in gone]
    return refusals[-1] if refusals else None


def _remember(memory: BounceMailbox, lease: Lease) -> None:
    """Unless somebody has taken over, who remembers more."""
    if lease.keep():
        memory.save()
