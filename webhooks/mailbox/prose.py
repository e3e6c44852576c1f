"""Mails for people: bounces that follow no standard, and answers of machines."""

import re

from delivery.bounces import BounceClass, classify_reply
from delivery.phrases import AUTO_REPLY, plain_words
from webhooks.classification import as_bounce
from webhooks.kinds import FeedbackKind
from webhooks.mailbox.mime import Mail
from webhooks.mailbox.told import Told
from webhooks.reading import as_detail

_READ = 4_000

_SENDERS = re.compile(
    r"mailer[-_ ]?daemon|postmaster|mail[- ]delivery (system|sub ?system)|mdaemon", re.IGNORECASE
)
_SUBJECTS = re.compile(
    r"undeliver|non[- ]?deliver|returned mail|returned to sender|delivery[- ](status|failure|fail|"
    r"problem|has failed|notification)|delivery .{0,40}(failed|delayed)|failure notice|"
    r"mail failure|mail delivery|message .{0,40}delayed|could not (be deliver|send)|unzustellbar|"
    r"non remis|no se puede entregar|mancata consegna|не доставлен",
    re.IGNORECASE,
)
# The beginning of the form that qmail gave its bounces (QSBMF).
_QMAIL = re.compile(r"\s{0,10}Hi\. (?:This is the|The)\b")

# Behind one of these stands the mail itself, in its own words.
_COPY = re.compile(
    r"^[ \t>]*(?:-+ *(?:this is a copy of|below this line is a copy|original message|original mail|"
    r"returned message|message header|the header of|unsent message)|return-path:|received: |"
    r"message-id:|---+ ?headers? follow|reporting-mta:)",
    re.IGNORECASE | re.MULTILINE,
)
_STILL_TRIED = re.compile(
    r"(?<!been )delayed|not yet (?:been )?delivered|warning message only|"
    r"will (?:continue|keep|be retried|retry)|still (?:being )?(?:trying|tried|retried)|"
    r"warning: (?:message|could not send)",
    re.IGNORECASE,
)

# RFC 3834, and what is in use besides. Our own mail has Auto-Submitted, too, but is not in here.
_OF_MACHINES = ("x-autoreply", "x-autorespond", "x-autoresponse", "x-mail-autoreply")
_PRECEDENCES = ("auto_reply", "auto-reply", "autoreply")


def read_bounce(mail: Mail) -> Told | None:
    """What a mail server says to people, or None when it is not a server's bounce."""
    words = mail.words.strip()
    if not _is_bounce(mail, words):
        return None
    subject = mail.first("subject")
    copy = _COPY.search(words)
    said = _without_indents(words[: copy.start()] if copy else words)[:_READ]
    detail = as_detail(subject, said)
    if _STILL_TRIED.search(f"{subject}\n{said}"):
        return Told(FeedbackKind.DEFERRED, None, detail)
    return Told(*as_bounce(classify_reply(said)), detail)


def read_answer(mail: Mail) -> Told | None:
    """An automatic reply or a challenge: somebody's mailbox has the mail. None for others."""
    if not _is_answer(mail, mail.words):
        return None
    return Told(*as_bounce(BounceClass.AUTO_REPLY), as_detail(mail.first("subject")))


def _is_bounce(mail: Mail, words: str) -> bool:
    if mail.values("x-failed-recipients") or _QMAIL.match(words):
        return True
    if not _SUBJECTS.search(mail.first("subject")):
        return False
    if _SENDERS.search(f"{mail.first('from')} {mail.first('sender')}"):
        return True
    # Mailboxes answer without a return address, too, and repeat our subject: "Delivery notice".
    return "<>" in mail.values("return-path") and not _is_answer(mail, words)


def _is_answer(mail: Mail, words: str) -> bool:
    told = plain_words(f"{mail.first('subject')}\n{words[:_READ]}")
    return _is_marked(mail) or AUTO_REPLY.search(told) is not None


def _is_marked(mail: Mail) -> bool:
    submitted = mail.first("auto-submitted").lower()
    precedence = [text.lower() for text in mail.values("precedence", "x-precedence")]
    return bool(
        submitted.startswith("auto-replied")
        or mail.values(*_OF_MACHINES)
        or any(text in _PRECEDENCES for text in precedence)
    )


def _without_indents(words: str) -> str:
    return "\n".join(line.strip() for line in words.splitlines())
