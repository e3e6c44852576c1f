"""Whether a person opened or clicked, or a program did. Pure.

Mail is read by machines before people see it: security gateways follow every link, services load
every picture. What follows tells them apart by what they say of themselves and by how they behave;
each rule is wrong in the direction of calling a person a machine, because what counts as a person
is acted on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from delivery.states import Actor

TOO_SOON = timedelta(seconds=10)
"""After the hand-over. Until then a mail has hardly arrived."""
BURST = timedelta(seconds=2)
BURST_LINKS = 3
"""So many links of one mail in that time are more than a hand opens."""
NEAR = timedelta(seconds=10)
"""A program that has shown itself once is not taken for a person shortly before or after."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A visit, as far as it is evidence. An open has no link."""

    at: datetime
    link: UUID | None
    client: bytes
    """The same for the same program at the same mail."""
    user_agent: str = ""
    is_head: bool = False
    is_prefetch: bool = False
    is_known_machine: bool = False
    """By an earlier judgement."""


class Judgement(NamedTuple):
    """Who it was, and how that is known."""

    actor: Actor
    reason: str = ""


_OUTRIGHT_MACHINES = {
    "a security gateway": (
        r"avanan|barracuda|cisco|cloudmark|defender|fireeye|forcepoint|fortinet|google-safety|"
        r"hornetsecurity|ironport|mimecast|proofpoint|safelinks|sophos|symantec|trend ?micro|"
        r"trustwave|urlscan|vade ?secure|virustotal|zscaler"
    ),
    "a link preview": (
        r"bingpreview|discordbot|facebookexternalhit|linkedinbot|skypeuripreview|slackbot|"
        r"slack-imgproxy|telegrambot|twitterbot|whatsapp|google-pagerenderer"
    ),
    "a program": (
        r"aiohttp|apache-httpclient|axios|curl/|go-http-client|guzzle|headlesschrome|httpx|java/|"
        r"libwww|node-fetch|okhttp|phantomjs|playwright|postmanruntime|puppeteer|python-requests|"
        r"python-urllib|ruby|scrapy|wget"
    ),
    # One maker of telephones is called Cubot.
    "a crawler": r"(?<!cu)bot\b|crawler|spider|scanner|archiver",
}
_PROXIES = {
    "Gmail's image proxy": r"googleimageproxy|ggpht\.com",
    "Yahoo's image proxy": r"yahoomailproxy|yahoocachesystem",
    # What it says is this and no more; everybody else adds something.
    "Apple Mail Privacy Protection": r"^mozilla/5\.0$",
}
_NO_BROWSERS = {
    # It opens links in a browser; what follows one with its own name looks at it first.
    "a mail program": r"\bms-?office|microsoft (office|outlook)|thunderbird|lightning/",
    "a browser nobody has any more": r"\bmsie [1-9]\.",
    "not a browser": r"^(?!mozilla/|opera/)",
}


def _compiled(table: dict[str, str]) -> list[tuple[str, re.Pattern[str]]]:
    return [(name, re.compile(pattern, re.IGNORECASE)) for name, pattern in table.items()]


_MACHINE_RULES = _compiled(_OUTRIGHT_MACHINES)
_PROXY_RULES = _compiled(_PROXIES)
_CLICK_RULES = _compiled(_NO_BROWSERS)


def judge(visit: Seen, around: Sequence[Seen], handed_over_at: datetime | None) -> Judgement:
    """Who it was. `around`: the visits of the same message within `NEAR` of it, itself included."""
    found = _by_itself(visit) or _by_its_time(visit, handed_over_at)
    if found is None and visit.link is not None and _is_in_burst(visit, around):
        found = Judgement(Actor.MACHINE, f"{BURST_LINKS} links within {BURST.seconds} s")
    if found is None and _gave_itself_away(visit, around, handed_over_at):
        found = Judgement(Actor.MACHINE, "the same program just before or after")
    return found or Judgement(Actor.PERSON)


def _by_itself(visit: Seen) -> Judgement | None:
    if visit.is_head:
        return Judgement(Actor.MACHINE, "asked for the headers only")
    if visit.is_prefetch:
        return Judgement(Actor.MACHINE, "fetched ahead of a person")
    agent = visit.user_agent.strip()
    if not agent:
        return Judgement(Actor.MACHINE, "does not say what it is")
    if name := _first(_MACHINE_RULES, agent):
        return Judgement(Actor.MACHINE, name)
    if name := _first(_PROXY_RULES, agent):
        # Pictures are loaded through these, links are not followed through them.
        return Judgement(Actor.PROXY if visit.link is None else Actor.MACHINE, name)
    if visit.link is not None and (name := _first(_CLICK_RULES, agent)):
        return Judgement(Actor.MACHINE, name)
    return None


def _first(rules: list[tuple[str, re.Pattern[str]]], agent: str) -> str:
    return next((name for name, pattern in rules if pattern.search(agent)), "")


def _by_its_time(visit: Seen, handed_over_at: datetime | None) -> Judgement | None:
    if handed_over_at is not None and visit.at < handed_over_at + TOO_SOON:
        return Judgement(Actor.MACHINE, f"within {TOO_SOON.seconds} s of the hand-over")
    return None


def _is_in_burst(visit: Seen, around: Sequence[Seen]) -> bool:
    """Whether some span of `BURST` with the visit in it has enough links."""
    clicks = [seen for seen in around if seen.link is not None]
    starts = {seen.at for seen in clicks if visit.at - BURST <= seen.at <= visit.at}
    return any(
        len({seen.link for seen in clicks if start <= seen.at <= start + BURST}) >= BURST_LINKS
        for start in starts
    )


def _gave_itself_away(visit: Seen, around: Sequence[Seen], handed_over_at: datetime | None) -> bool:
    return any(
        seen.is_known_machine
        or seen.is_head
        or seen.is_prefetch
        or _by_its_time(seen, handed_over_at) is not None
        or (seen.link is not None and _is_in_burst(seen, around))
        for seen in around
        if seen.client == visit.client and abs(seen.at - visit.at) <= NEAR
    )
