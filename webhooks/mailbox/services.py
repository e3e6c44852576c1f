"""Fetching what came into the bounce mailbox."""

import time

from django.conf import settings

from webhooks.mailbox.account import account_of, folder_after
from webhooks.mailbox.imap import open_mailbox
from webhooks.mailbox.reports import NAME
from webhooks.reading import hash_id
from webhooks.receipts import NewReceipt, keep_receipts

BATCH = 20
MOST = 1_000
"""Mails of one poll; those that are left come with the next one."""

_CONTENT_TYPE = "message/rfc822"


def poll(*, budget: float = 60.0) -> int:
    """Keep the mails in the bounce mailbox as receipts and put them away there; returns how many.

    A mail is put away after its receipt is committed. Whoever dies in between, or polls at the
    same time, finds it again and keeps nothing twice: a receipt's id is the hash of the mail, which
    outlasts a mailbox that is moved to another server. Raises `MailboxError`.
    """
    deadline = time.monotonic() + budget
    account = account_of(settings.BOUNCE_MAILBOX_URL)
    folder = folder_after(settings.BOUNCE_MAILBOX_AFTER, account)
    kept = 0
    with open_mailbox(account) as mailbox:
        uids = mailbox.uids(MOST)
        for start in range(0, len(uids), BATCH):
            if time.monotonic() > deadline:
                break
            fetched = {uid: mailbox.fetch(uid) for uid in uids[start : start + BATCH]}
            mails = {uid: mail for uid, mail in fetched.items() if mail is not None}
            keep_receipts(
                [
                    NewReceipt(NAME, hash_id("mail", mail), mail, _CONTENT_TYPE)
                    for mail in mails.values()
                ]
            )
            mailbox.put_away(list(mails), folder)
            kept += len(mails)
    return kept
