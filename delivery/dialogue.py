"""Handing over in one round trip per mail: while a mail's text is on its way, the next one is
announced behind it.

To announce a mail is to say who it is from and whom it is for; nothing is taken by that. Only its
text can be, and that is written after the journal has granted the right to begin it. So at most
one mail per connection is begun and not done at any moment, although two are on the wire.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from delivery.journal import Journal, JournalLost
from delivery.outbound import OutboundEmail
from delivery.turns import Departed, Handed, Turns
from delivery.verdicts import Verdict


@runtime_checkable
class Dialogue(Protocol):
    """What a backend has to offer. It reopens its connection where that cannot double a mail, and
    turns the faults of server and network into verdicts."""

    def open(self) -> bool | None:
        """Connect, unless it is connected. Raises whatever kept it from that."""

    def announce(self, email: OutboundEmail) -> Verdict | None:
        """Announce the mail, or hear what became of its announcement; None once its text is waited
        for, otherwise why it will not be taken."""

    def deliver(self, upcoming: OutboundEmail | None) -> Verdict:
        """Write the text that is waited for, announce `upcoming` along with it, and say what came
        of the text. `upcoming` has to be the next that `announce` is called with."""

    def withdraw(self) -> None:
        """Take back whatever has been announced."""


class Conversation:
    """One connection's part of a batch."""

    def __init__(
        self,
        door: Dialogue,
        turns: Turns,
        journal: Journal | None,
        understood: Callable[[Departed, Verdict | Exception], Handed],
    ) -> None:
        """`understood` makes of a verdict, or of an unforeseen error, what may be recorded."""
        self._door = door
        self._turns = turns
        self._journal = journal
        self._understood = understood

    def hand_over(
        self, item: Departed, *, look: Callable[[], None] | None, is_last: Callable[[], bool]
    ) -> Departed | None:
        """Hand the message over; the next one if that is announced already, and then has to be
        handed over next or to be withdrawn. None is announced once `is_last` says so.

        `look` finds out what was switched off meanwhile; None where another thread does that.
        """
        upcoming = None
        try:
            verdict: Verdict | Exception | None = self._door.announce(item.outbound.email)
            if verdict is None:
                if look is not None:
                    look()
                if not self._may_go(item):
                    self._door.withdraw()
                    return None
                upcoming = None if is_last() else self._turns.due()
                verdict = self._door.deliver(upcoming.outbound.email if upcoming else None)
        except Exception as error:  # noqa: BLE001 - the unforeseen has a verdict too
            self._door.withdraw()
            verdict = error
        handed = self._understood(item, verdict)
        if self._journal is not None:
            self._journal.done([(item.outbound.message.pk, handed.verdict)])
        self._turns.note([handed])
        return upcoming

    def _may_go(self, item: Departed) -> bool:
        """Whether the text may be written: it is still wanted, and the right to begin is ours."""
        if self._turns.is_over or not self._turns.may_begin(item):
            return False
        if self._journal is None:
            return True
        try:
            (is_ours,) = self._journal.begin([item.outbound.message.pk])
        except JournalLost:
            is_ours = False
        if not is_ours:
            # Lost, or taken away: with this one the batch.
            self._turns.end()
        return is_ours
