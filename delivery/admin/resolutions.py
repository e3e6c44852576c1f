"""What operators do with messages that did not leave, or of which nobody knows."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import ngettext

from common.admin.operations import Operation, Refused
from delivery.services import (
    discard_messages,
    mark_unknown_sent,
    replay_messages,
    resend_unknown,
)
from delivery.states import DEAD_LETTER_STATES, MessageState

_REPLAYABLE = (*DEAD_LETTER_STATES, MessageState.HELD)


def _moved(count: int, one: str, many: str) -> str:
    if not count:
        raise Refused("Nothing was changed: it is in another state by now.")
    return ngettext(one, many, count) % count


def _replay(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    return _moved(
        replay_messages(ids), "%d message is queued again.", "%d messages are queued again."
    )


def _discard(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    return _moved(discard_messages(ids), "%d message discarded.", "%d messages discarded.")


def _mark_sent(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    return _moved(
        mark_unknown_sent(ids), "%d message counts as sent.", "%d messages count as sent."
    )


def _resend(_request: HttpRequest, ids: list[Any], _data: dict[str, Any]) -> str:
    return _moved(resend_unknown(ids), "%d message is sent now.", "%d messages are sent now.")


REPLAY = Operation(
    name="replay",
    label="Replay",
    icon="replay",
    run=_replay,
    question="The provider provably does not have it, so nobody gets it twice. "
    "Every check is made again: suppressions, consent, switches.",
    when=lambda message: message.state in _REPLAYABLE,
    primary=True,
    bulk=True,
)
DISCARD = Operation(
    name="discard",
    label="Discard",
    icon="delete",
    run=_discard,
    question="It will never be sent. This cannot be taken back.",
    when=lambda message: message.state in (*_REPLAYABLE, MessageState.UNKNOWN),
    danger=True,
    bulk=True,
)
THE_PROVIDER_HAS_IT = Operation(
    name="mark-sent",
    label="The provider has it",
    icon="check_circle",
    run=_mark_sent,
    question="You found it in the provider's log: it was taken. It is marked as sent.",
    when=lambda message: message.state == MessageState.UNKNOWN,
    primary=True,
    bulk=True,
)
SEND_IT = Operation(
    name="resend",
    label="The provider does not have it: send",
    icon="send",
    run=_resend,
    question="You looked into the provider's log and it is not there. If it was taken after "
    "all, the recipient gets this mail twice.",
    when=lambda message: message.state == MessageState.UNKNOWN,
    danger=True,
    bulk=True,
)
