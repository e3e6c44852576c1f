"""Why a mail came back, by what has to be done about it.

`classify_reply` reads a server's words. Order of evidence: the enhanced status code (RFC 3463), a
basic code that means the same as one, phrases, a default for the rest of a code's family. What is
undetermined is `SOFT`: a good address is never thrown away on a guess.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from delivery import phrases


class BounceClass(StrEnum):
    """Why a mail came back, by what has to be done about it."""

    HARD = "hard"
    """The address is no good: suppress it."""
    OWNER_CHANGED = "owner_changed"
    """The mailbox belongs to somebody else now, who has consented to nothing."""
    SOFT = "soft"
    """It may work next time; also everything undetermined."""
    AUTO_REPLY = "auto_reply"
    """A machine or a person answered; the mail arrived."""
    THROTTLE = "throttle"
    """The receiver wants fewer mails at a time."""
    BLOCK = "block"
    """The receiver does not like the sender: no fault of the address."""
    AUTH = "auth"
    """SPF, DKIM, DMARC or the sending host's name: our set-up is wrong."""
    CONTENT = "content"
    """This very message is the problem."""
    COMPLAINT = "complaint"
    """The person called it spam."""
    UNSUBSCRIBE = "unsubscribe"
    """The person asked to be left alone."""


FOR_GOOD = frozenset({BounceClass.HARD, BounceClass.OWNER_CHANGED})
"""Nothing arrives at this address any more, or not with whom it was for."""

RETURNED = FOR_GOOD | {
    BounceClass.SOFT,
    BounceClass.THROTTLE,
    BounceClass.BLOCK,
    BounceClass.AUTH,
    BounceClass.CONTENT,
}
"""The mail did not arrive, or not yet. The others are what people and machines answer to one that
did."""


def not_hard(bounce_class: BounceClass) -> BounceClass:
    """What a reply says of a mail that is known to be turned away for now only: anything, except
    that the address is no good."""
    return BounceClass.SOFT if bounce_class in FOR_GOOD else bounce_class


# Characters that are read; what matters stands at the beginning.
_LONGEST_REPLY = 4_000
_LONGEST_CODE = 100


@dataclass(frozen=True, slots=True)
class _Rule:
    """A class for these codes, and then only with these words if there are any."""

    codes: re.Pattern[str]
    bounce_class: BounceClass
    words: re.Pattern[str] | None = None

    def matches(self, basic: str, enhanced: str, words: str) -> bool:
        return bool(
            self.codes.fullmatch(f"{basic}/{enhanced}")
            and (self.words is None or self.words.search(words))
        )


def _rule(codes: str, bounce_class: BounceClass, words: re.Pattern[str] | None = None) -> _Rule:
    """`codes` are enhanced ones, divided by spaces: `x` is 4 or 5, `*` any number, `421/4.7.0`
    counts after that basic code only."""
    patterns = [
        (code if "/" in code else f"*/{code}")
        .replace(".", r"\.")
        .replace("*", r"\d*")
        .replace("x", "[45]")
        for code in codes.split()
    ]
    return _Rule(re.compile("|".join(patterns)), bounce_class, words)


# The first that matches counts.
_BY_CODE = (
    _rule("x.*.*", BounceClass.AUTH, phrases.SENDER_REFUSED),
    # Gmail has said this with 5.2.1, too: "receiving mail at a rate that prevents …".
    _rule("5.2.1", BounceClass.THROTTLE, phrases.THROTTLED),
    # Some servers have one code for everything about a mailbox.
    _rule("5.1.1 5.1.6 5.2.1", BounceClass.SOFT, phrases.MAILBOX_FULL),
    _rule("5.1.[12346] 5.1.10 5.2.1 5.7.13", BounceClass.HARD),
    _rule("5.1.0", BounceClass.HARD, phrases.UNKNOWN_TO_CISCO),
    _rule("5.1.[78]", BounceClass.AUTH),
    _rule("x.2.[024]", BounceClass.SOFT),
    _rule("x.2.3 x.3.4", BounceClass.CONTENT),
    _rule("x.3.*", BounceClass.SOFT),
    # With other words it is "no answer from host".
    _rule("5.4.1", BounceClass.HARD, phrases.UNKNOWN_TO_EXCHANGE),
    _rule("x.4.*", BounceClass.SOFT),
    _rule("5.5.0", BounceClass.HARD, phrases.UNKNOWN_TO_OUTLOOK),
    _rule("x.6.*", BounceClass.CONTENT),
    _rule("5.7.1[78]", BounceClass.OWNER_CHANGED),
    _rule("421/4.7.0 4.7.28 x.7.38", BounceClass.THROTTLE),
    _rule("5.7.28", BounceClass.BLOCK),
    _rule("4.7.2[0-79]", BounceClass.SOFT, phrases.TEMPORARY_CHECK),
    _rule("x.7.2[0-79] 5.7.509 5.7.515", BounceClass.AUTH),
    # Logging in, encryption, and whom a mailbox admits (Microsoft): nothing that our domain's
    # records or the address could be blamed for, whatever the words.
    _rule("5.7.[2-9] 5.7.1[0-24-6] 5.7.1[0-9][0-9]", BounceClass.BLOCK),
)

_BY_WORDS = (
    (phrases.AUTO_REPLY, BounceClass.AUTO_REPLY),
    (phrases.TEMPORARY_CHECK, BounceClass.SOFT),
    # Before the limits: "rate limited because it is unauthenticated" is cured by authenticating.
    (phrases.NOT_AUTHENTICATED, BounceClass.AUTH),
    (phrases.OWNER_CHANGED, BounceClass.OWNER_CHANGED),
    # Before unknown recipients: "too many invalid recipients", "no such mailbox or quota exceeded".
    (phrases.THROTTLED, BounceClass.THROTTLE),
    (phrases.MAILBOX_FULL, BounceClass.SOFT),
    (phrases.GREYLISTED, BounceClass.SOFT),
    (phrases.LISTED, BounceClass.BLOCK),
    (phrases.UNKNOWN_RECIPIENT, BounceClass.HARD),
    (phrases.OF_THIS_MESSAGE, BounceClass.CONTENT),
    (phrases.DISLIKED, BounceClass.BLOCK),
)

# Codes that say little, so that words come first: most servers mean policy by 5.7.1, many send
# 5.5.0 or 5.0.0 with everything.
_OTHERWISE = (
    _rule("5.7.*", BounceClass.BLOCK),
    # Microsoft: "access denied, please try again later".
    _rule("4.7.[56][0-9][0-9]", BounceClass.THROTTLE),
    _rule("x.5.*", BounceClass.CONTENT),
)

# Basic codes that mean no less than an enhanced one. The 53x are about our own logging in, so
# that an "unknown user" is not the recipient.
_AS_ENHANCED = {
    "511": "5.1.1",
    "523": "5.2.3",
    "530": "5.7.3",
    "534": "5.7.9",
    "535": "5.7.8",
    "538": "5.7.11",
    "541": "5.7.1",
    "556": "5.1.10",
    "571": "5.7.1",
}

# Neither part of an IP address, a version or a path, nor of a longer number.
_ENHANCED = re.compile(r"(?<![\w./])([45]\.[0-7]\.\d{1,3})(?!\.?\d)")
_PRODUCT = re.compile(
    r"(?:version|release|exim|postfix|sendmail|spamassassin|mailscanner|zimbra|rspamd)[ :=-]{1,2}$"
)
_BASIC = re.compile(
    r"(?:^|[;>\"'(\[{=]|:\s|[a-z]:|\b(?:smtp|code|error|status|reply|said|returned|response)\s)\s?"
    r"([45][0-57]\d)(?=[\s\-:.,;'\")\]}#]|$)",
    re.MULTILINE,
)


def classify_reply(text: str, *, code: str = "") -> BounceClass:
    """What a receiving server's answer means; `text` may also be a person's automatic reply.

    `code` is an enhanced or basic status that a provider gives apart from the text; it counts
    before what stands in the text, and one that cannot be read does not count. What is temporary,
    by its status or its words, never makes an address bad. Never raises. COMPLAINT and UNSUBSCRIBE
    do not come in replies.
    """
    text = text[:_LONGEST_REPLY].lower()
    code = code[:_LONGEST_CODE].strip().lower()
    words = phrases.plain_words(text)
    basic = _basic(code) or _basic(text)
    enhanced = [*_enhanced(code), *_enhanced(text)]
    found = _classify(basic, _telling(enhanced) or _AS_ENHANCED.get(basic, ""), words)
    if found not in (BounceClass.HARD, BounceClass.OWNER_CHANGED):
        return found
    temporary = any(status.startswith("4") for status in (code, basic, *enhanced[:1]))
    return BounceClass.SOFT if temporary or phrases.TEMPORARY.search(words) else found


def _classify(basic: str, enhanced: str, words: str) -> BounceClass:
    for rule in _BY_CODE:
        if rule.matches(basic, enhanced, words):
            return rule.bounce_class
    for phrase, bounce_class in _BY_WORDS:
        if phrase.search(words):
            return bounce_class
    for rule in _OTHERWISE:
        if rule.matches(basic, enhanced, words):
            return rule.bounce_class
    return BounceClass.SOFT


def _telling(enhanced: list[str]) -> str:
    """The first code that says more than "failed": gateways put a 5.0.0 before the real one."""
    return next((status for status in enhanced if not status[1:].startswith(".0.")), "")


def _basic(text: str) -> str:
    match = _BASIC.search(text)
    return match[1] if match else ""


def _enhanced(text: str) -> list[str]:
    return [
        match[1]
        for match in _ENHANCED.finditer(text)
        if not _PRODUCT.search(text, max(0, match.start() - 20), match.start())
    ]
