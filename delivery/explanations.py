"""What became of a message, in words: "why did Alice not get this?" Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from delivery.bounces import BounceClass
from delivery.models import Attempt, Bounce, LookUp, Message
from delivery.states import MessageState, Reason
from suppression.states import scope_in_words

STATE_TONES: dict[str, str] = {
    MessageState.QUEUED: "blue",
    MessageState.CLAIMED: "blue",
    MessageState.DISPATCHING: "blue",
    MessageState.SENT: "green",
    MessageState.RETRY: "amber",
    MessageState.UNKNOWN: "amber",
    MessageState.FAILED: "red",
    MessageState.DEAD: "red",
    MessageState.SKIPPED: "grey",
    MessageState.HELD: "amber",
}

_VERDICTS = {
    "accepted": ("The provider took it", "green"),
    "retry": ("The provider did not take it", "amber"),
    "permanent": ("The provider refused it", "red"),
    "unknown": ("No answer that can be trusted", "amber"),
}

_CAME_BACK = (
    ("delivered_at", "Delivered", "green"),
    ("opened_at", "Opened", "green"),
    ("clicked_at", "Clicked", "green"),
    ("rejected_at", "Rejected by the provider", "red"),
    ("bounced_at", "Bounced", "red"),
    ("complained_at", "Marked as spam", "red"),
    ("unsubscribed_at", "Unsubscribed", "amber"),
)

RETURNED_WORDS: dict[str, tuple[str, str]] = {
    BounceClass.HARD: ("Came back: the address is no good", "red"),
    BounceClass.OWNER_CHANGED: ("Came back: the mailbox is somebody else's now", "red"),
    BounceClass.SOFT: ("Came back for now", "amber"),
    BounceClass.THROTTLE: ("Put off: too many at a time", "amber"),
    BounceClass.BLOCK: ("Turned away as spam or by policy", "red"),
    BounceClass.AUTH: ("Turned away for SPF, DKIM or DMARC", "red"),
    BounceClass.CONTENT: ("Turned away for what is in it", "red"),
}

_CLOCKS_DIFFER = timedelta(minutes=1)

_STATES: dict[str, str] = {
    MessageState.QUEUED: "It waits for its turn and leaves as soon as a worker is free.",
    MessageState.CLAIMED: "A worker is preparing it right now.",
    MessageState.DISPATCHING: "It is being handed over to the provider right now.",
    MessageState.RETRY: "The provider did not take it yet; it will be tried again.",
    MessageState.UNKNOWN: "Nobody knows whether the provider took it, so it is not sent again "
    "by itself.",
    MessageState.FAILED: "It was not sent.",
    MessageState.DEAD: "It was not sent, and it is not tried again.",
    MessageState.SKIPPED: "It was not sent.",
    MessageState.HELD: "It is held back and leaves when the cause is gone.",
}

_ADVICE: dict[str, str] = {
    Reason.NO_ADDRESS: "Add the address on the contact's page; the next event will reach them.",
    Reason.CONTACT_INACTIVE: "Set the contact active again if they may be mailed.",
    Reason.SUPPRESSED: "Its entry under Suppressions says since when and why. Lift it only if "
    "the person asks for it.",
    Reason.NO_TOPIC: "Choose a topic on the campaign and publish it.",
    Reason.CONSENT_MISSING: "The topic's policy asks for consent before the first mail. "
    "If the person gave it, record it on the contact's page.",
    Reason.CONSENT_WITHDRAWN: "Only the person can give it again.",
    Reason.CONSENT_PENDING: "Only the person can: the link is in the mail that asks them.",
    Reason.PAUSED: "Nothing: their pause ends by itself, and the next mail reaches them.",
    Reason.WEEKLY_LIMIT: "Nothing: it is their own limit. Mail after that is sent again.",
    Reason.CAMPAIGN_PAUSED: "Resume the campaign and it leaves.",
    Reason.CAMPAIGN_STOPPED: "Mail of a stopped campaign is not sent any more.",
    Reason.REPUTATION: "Find out whose addresses they are, or what people did not ask for. Then "
    "switch it on again under Switches and it leaves.",
    Reason.KILL_SWITCH: "Switch sending on again under Switches and it leaves.",
    Reason.NO_SENDER: "Add a default sender, then replay the message.",
    Reason.NO_PROVIDER: "Set the sender's provider active, then replay the message.",
    Reason.NO_REGION: "Give a provider this region, then replay the message.",
    Reason.PROVIDER_DOWN: "It leaves by itself once the provider is back. Its page says what it "
    "answered; if the cause is put right, try again there.",
    Reason.SENDER_REFUSED: "Verify the sender's domain with the provider, then try again on the "
    "provider's page. Otherwise it is offered again by itself every few minutes.",
    Reason.CAP_REACHED: "It leaves by itself when the next hour or day begins (UTC).",
    Reason.SLOWED: "It leaves by itself in an hour that has room for it, or when the slow-down is "
    "lifted under Switches.",
    Reason.WARMING_UP: "It leaves by itself when the plan's next hour or day has room for it.",
    Reason.GATE_FAILED: "When in doubt, nothing leaves. Replay it once the cause is fixed.",
    Reason.RENDER_FAILED: "Correct and publish the template. This message keeps the version it "
    "was made with; the next event uses the new one.",
    Reason.CRASHED: "Replay it once the cause is found; the workers' logs name it.",
    Reason.REFUSED: "The provider said no for good. Replaying helps only if something changed.",
    Reason.ATTEMPTS_EXHAUSTED: "Replay it once the provider is well again.",
    Reason.OUTCOME_UNKNOWN: "Look for the Message-ID in the provider's log, then say what you "
    "found with one of the buttons.",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of a message's timeline."""

    at: datetime
    title: str
    tone: str = "grey"
    text: str = ""


def sentence_of(message: Message) -> str:
    """What became of it and why, in one or two sentences."""
    if message.state == MessageState.SENT:
        return _sent(message)
    words = _STATES[message.state]
    reason = message.get_reason_display() if message.reason else ""
    detail = _detail(message)
    if message.state == MessageState.UNKNOWN:
        return f"{words} What is known: {detail or 'nothing'}."
    if reason:
        words = f"{words} {reason}{f' ({detail})' if detail else ''}."
    elif detail:
        words = f"{words} Last answer: {detail}."
    return words


def advice_of(message: Message) -> str:
    """What can be done about it; empty when there is nothing to do."""
    if message.state == MessageState.SENT:
        return ""
    return _ADVICE.get(message.reason, "")


def timeline_of(
    message: Message,
    attempts: Iterable[Attempt],
    bounces: Iterable[Bounce] = (),
    look_ups: Iterable[LookUp] = (),
) -> list[Moment]:
    """Everything that happened to it, oldest first."""
    moments = [Moment(message.created_at, "Created", "blue", _origin(message))]
    for attempt in attempts:
        title, tone = _VERDICTS.get(attempt.verdict, (attempt.verdict, "grey"))
        text = f"Attempt {attempt.number} through {attempt.provider.key}"
        asked = f" Asked was: {attempt.request}" if attempt.request else ""
        moments.append(Moment(attempt.at, title, tone, _with(text, attempt.detail) + asked))
    for bounce in bounces:
        title, tone = RETURNED_WORDS[bounce.bounce_class]
        moments.append(
            Moment(bounce.at, title, tone, _with(f"Told by {bounce.source}", bounce.detail))
        )
    for look_up in look_ups:
        if look_up.last_at is not None:
            moments.append(Moment(look_up.last_at, *_looked_up(look_up)))
    for column, title, tone in _CAME_BACK:
        at = getattr(message, column)
        if at is not None:
            moments.append(Moment(at, title, tone, _clock(at, message)))
    return sorted(moments, key=lambda moment: moment.at)


def _looked_up(look_up: LookUp) -> tuple[str, str, str]:
    found = look_up.result == LookUp.Result.FOUND
    text = f"In its log, {look_up.tries} times so far: {look_up.get_result_display()}"
    return "Looked up at the provider", "green" if found else "grey", _with(text, look_up.detail)


def _clock(at: datetime, message: Message) -> str:
    """What is told by others is told by their clocks; no state depends on it."""
    if message.handed_over_at is None or at >= message.handed_over_at - _CLOCKS_DIFFER:
        return ""
    return "By the provider's clock, which is not ours: this was before the hand-over."


def _sent(message: Message) -> str:
    provider = f" {message.provider.key} took it" if message.provider is not None else " taken"
    for column, words in (
        ("complained_at", "and the recipient marked it as spam"),
        ("bounced_at", "but it bounced"),
        ("clicked_at", "and it was opened and clicked"),
        ("opened_at", "and it was opened"),
        ("delivered_at", "and it was delivered"),
    ):
        if getattr(message, column) is not None:
            return f"Sent:{provider}, {words}."
    return f"Sent:{provider}. Nothing has come back about it yet."


def _detail(message: Message) -> str:
    if message.reason == Reason.SUPPRESSED:
        return ", ".join(scope_in_words(scope) for scope in message.detail.split(", ") if scope)
    return message.detail.rstrip(".")


def _origin(message: Message) -> str:
    if not message.origin_campaign:
        return ""
    return f"By campaign {message.origin_campaign}, step {message.origin_step}"


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text
