"""Group commit of events."""

from collections.abc import Sequence

from events.directory import Rules
from events.group_commit import GroupCommit
from events.services import LANE, keep
from events.steps import Steps
from events.wire import Item, Outcome


class Committer(GroupCommit[Item, Outcome]):
    """`services.submit`, shared."""

    def __init__(self) -> None:
        super().__init__(self._keep_known, LANE)
        self._known = Rules(version="")

    async def submit(self, items: Sequence[Item], known: Rules, size: int = 0) -> list[Outcome]:
        """`add`, by these rules or what is known since."""
        self._known = known
        return await self.add(items, size)

    def _keep_known(self, items: Sequence[Item]) -> Steps[list[Outcome]]:
        return keep(items, self._known)
